"""`explain`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.options import AsJson, Device, check_has_task
from shrp.cli.output import example, print_json, print_table, provenance, stderr, stdout
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.phrases import signed

if TYPE_CHECKING:
    from shrp.analysis.attribution.tokens import WordScores
    from shrp.analysis.explore import Exploration
    from shrp.analysis.patching import Patched
    from shrp.checkpoints.checkpoint import Checkpoint

SHOWN = 12
"""Words, or longer pieces, that are printed; JSON has all."""


def register(app: typer.Typer) -> None:
    """Add this module's command to the command line."""
    app.command(
        short_help="The answer, route and words of texts that you give",
        epilog=example(
            'explain checkpoints/sst2-6of12 --text "A joy." --text "Anything but a joy."',
            "Prints for each text the answer, the expert that every layer takes, and how far the answer's logit falls "
            "without each word.",
        ),
    )(explain)


def explain(
    checkpoint: Annotated[Path, typer.Argument(help="An SHRP checkpoint.", show_default=False)],
    text: Annotated[
        list[str],
        typer.Option(help="A text; of a pair both, with ||| between them. Once for each of several."),
    ],
    output: Annotated[
        str | None, typer.Option(help="The class to explain, by name; by default the one that is answered.")
    ] = None,
    rather_than: Annotated[
        str | None,
        typer.Option(help="Another class: explain by how much the one's logit leads this one's, by name."),
    ] = None,
    patched: Annotated[
        bool,
        typer.Option(
            "--patched",
            help="Of two texts: also how far each hidden state of the second, put into the first, moves its output.",
        ),
    ] = False,
    words: Annotated[bool, typer.Option(help="Also what is lost without each word.")] = True,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """What a model makes of texts that you give: its answer, its route, and the words that the answer is due to.

    Texts are read as far as the model has positions. Words are taken out one by one, a mask in their place, and the
    model routes what is left anew; of long texts it is phrases or sentences.
    """
    from shrp.analysis.explore import explore
    from shrp.analysis.patching import patch
    from shrp.checkpoints.checkpoint import load
    from shrp.model.convert import router_layers

    loaded = load(checkpoint, device=device)
    task = loaded.info.task
    check_has_task(task)
    texts = [_parts(one, task) for one in text]
    for name in (output, rather_than):
        if name is not None and name not in task.label_names:
            known = ", ".join(task.label_names) or "none: it answers with a number"
            raise DataError(f"'{name}' is no class of '{task.name}'; its classes are {known}.")
    if output is not None and output == rather_than:
        raise DataError(f"'{output}' has no lead over itself: name another class for --rather-than.")
    rival = None if rather_than is None else task.label_names.index(rather_than)
    if not words and (output is not None or rather_than is not None):
        stderr.print(
            "--output and --rather-than say what words are explained by, and --no-words leaves these out"
        )
    if patched and len(texts) != 2:
        raise DataError(
            f"--patched puts states of one text into another: give --text twice, not {len(texts)} times."
        )
    found = explore(loaded.model, loaded.tokenizer, task, texts)
    routed = bool(router_layers(loaded.model))
    replaced_by = "pad" if loaded.tokenizer.mask_token_id is None else "mask"
    states = patch(loaded.model, loaded.tokenizer, task, *texts) if patched else None
    told = []
    for one in found:
        which = one.prediction if output is None else task.label_names.index(output)
        if words and which == rival:  # as of a text that is answered so, unasked
            stderr.print(
                f"'{' / '.join(one.text)[:60]}' is answered {rather_than}, which has no lead over itself: its words "
                "are of that logit alone"
            )
        less = None if which == rival else rival
        scores = _word_scores(loaded, one, which, less, replaced_by) if words else None
        told.append((one, scores, which, less))
    cut = loaded.info.max_length
    if longer := sum(len(one.tokens) > cut for one in found):
        stderr.print(
            f"{longer:,} of {len(found):,} texts {'is' if longer == 1 else 'are'} read beyond {cut:,} tokens, where "
            "this checkpoint's scores and usage cut an input: there it may answer otherwise"
        )
    if json:
        made = provenance(loaded, TextData(task, "typed", tuple(texts)), loaded.tokenizer.model_max_length)
        inputs = [_as_json(*each, replaced_by, routed=routed) for each in told]
        put_in = {} if states is None else {"patched": _patched_as_json(states)}
        print_json({"inputs": inputs} | put_in | {"provenance": made})
        return
    for number, each in enumerate(told, 1):
        _print(number, *each, routed=routed)
    if states is not None:
        _print_patched(states)


def _parts(text: str, task: Task) -> tuple[str, ...]:
    """The texts of an input as it is given.

    Raises:
        DataError: it has not as many as the task's inputs have, or one of them is empty.
    """
    from shrp.analysis.explore import PAIR_SEPARATOR, split_sentences

    inputs, _ = split_sentences(" ".join(text.split()), task)
    if inputs:
        return inputs[0]
    of_two = " and a ".join(task.text_columns)
    wanted = f"a {of_two}, with {PAIR_SEPARATOR} between them" if len(task.text_columns) == 2 else "some text"
    raise DataError(f"--text '{text[:60]}' is no input of '{task.name}': give {wanted}.")


def _word_scores(
    loaded: Checkpoint, one: Exploration, output: int, less: int | None, replaced_by: str
) -> WordScores | None:
    """What a class's logit, less that of another where there is one, loses without each word, or longer piece; None
    where there is no word.
    """
    from shrp.analysis.attribution.instance import against, prepare
    from shrp.analysis.attribution.tokens import ablate_words
    from shrp.analysis.attribution.units import fitting_unit, in_units

    try:
        instance = prepare(loaded.model, loaded.tokenizer, one.task, one.text)
    except DataError as error:
        stderr.print(f"no words of '{' / '.join(one.text)[:60]}': {error}")
        return None
    instance = in_units(instance, fitting_unit(instance))
    if less is not None:
        instance, output = against(instance, output, less), 0
    return ablate_words(instance, output, replacement=replaced_by)


def _answers(one: Exploration) -> dict[str, float]:
    names = one.task.label_names or ("output",)
    return dict(zip(names, map(float, one.probabilities), strict=True))


def _as_json(
    one: Exploration,
    scores: WordScores | None,
    which: int,
    less: int | None,
    replaced_by: str,
    *,
    routed: bool,
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "text": list(one.text),
        "answer": float(one.logits[0]) if one.task.is_regression else one.answer,
        ("outputs" if one.task.is_regression else "probabilities"): _answers(one),
        "logits": one.logits,
        "tokens_read": len(one.tokens),
        "tokens": one.full_length,
        "unknown_tokens": one.unknown,
    }
    if routed:
        named = {"runner-up": "runner_up", "its probability": "runner_up_probability"}
        named |= {"share of tokens": "share_of_tokens", "with it": "with_it"}
        found["route_of"] = "tokens, means over them" if one.by_token else "the input"
        found["route"] = one.choices().rename(columns=named).to_dict("records")
        for row in found["route"]:
            if "with_it" in row:
                row["with_it"] = one.with_it(row["layer"])
    if scores is not None:
        places = range(len(scores.words))
        found["words"] = {
            "unit": scores.unit,
            "of": _named(one.task, which),
            "rather_than": None if less is None else one.task.label_names[less],
            "method": scores.method,
            "replaced_by": replaced_by,
            "full": scores.full,
            "scores": [
                {"text": scores.words[i].text, "part": scores.words[i].part + 1, "score": scores.scores[i]}
                | ({} if scores.rerouted is None or not routed else {"layers_rerouted": scores.rerouted[i]})
                for i in places
            ],
        }
    return found


def _named(task: Task, output: int) -> str:
    return task.label_names[output] if task.label_names else "output"


def _print(
    number: int, one: Exploration, scores: WordScores | None, which: int, less: int | None, *, routed: bool
) -> None:
    stdout.print(f"{number}. {' / '.join(one.text)}")
    read = f"{len(one.tokens):,} tokens read" + f" of {one.full_length:,}" * one.truncated
    if one.task.is_regression:
        stdout.print(f"   {one.answer}; {read}")
    else:
        ranked = sorted(_answers(one).items(), key=lambda each: -each[1])
        stdout.print(f"   {', '.join(f'{name} {p:.1%}' for name, p in ranked)}; {read}")
    if routed:
        columns = {"probability": "p", "runner-up": "next", "its probability": "its p"}
        print_table(_route(one), one.choices().rename(columns=columns).astype(object).to_dict("records"))
    if scores is not None:
        stdout.print(f"   {_title(one.task, scores, which, less)}")
        print_table("", _rows(scores, one.task, routed=routed))


def _route(one: Exploration) -> str:
    """The title of the table of a route."""
    of_tokens = (
        "; every token routes by itself: p and its p are means over tokens, the margin the mean of their own"
    )
    return "route" + of_tokens * one.by_token


def _title(task: Task, scores: WordScores, which: int, less: int | None) -> str:
    of = "output" if task.is_regression else f"logit of {_named(task, which)}"
    of += "" if less is None else f" less that of {task.label_names[less]}"
    some = f"; the {SHOWN} that change it most" * (len(scores.words) > SHOWN)
    return f"what the {of}, {scores.full:.2f}, loses without each {scores.unit}{some}"


def _rows(scores: WordScores, task: Task, *, routed: bool) -> list[dict[str, Any]]:
    order: Sequence[int] = sorted(range(len(scores.words)), key=lambda i: -abs(float(scores.scores[i])))
    pair = len(task.text_columns) == 2
    return [
        {"place": i + 1}
        | ({"text": task.text_columns[scores.words[i].part]} if pair else {})
        | {scores.unit: scores.words[i].text, "loses": signed(float(scores.scores[i]), 2)}
        | ({} if scores.rerouted is None or not routed else {"layers routed anew": str(scores.rerouted[i])})
        for i in order[:SHOWN]
    ]


def _patched_as_json(states: Patched) -> dict[str, Any]:
    names = states.task.label_names or ("output",)
    of, rather_than = [None, None] if states.contrast is None else [names[label] for label in states.contrast]
    frame = states.to_frame()
    told = ["layer", "position", "token", "from", "change", "part of the gap"]
    rows = [{name.replace(" ", "_"): row[name] for name in told} for row in frame.to_dict("records")]
    for row in rows:
        logits = states.logits[row["layer"], row["position"]]
        row["logits"] = dict(zip(names, map(float, logits), strict=True))
        if states.rerouted is not None:
            row["layers_rerouted"] = states.rerouted[row["layer"], row["position"]]
    return {
        "into": 1,
        "from": 2,
        "of": of or "output",
        "rather_than": rather_than,
        "own": states.start,
        "other": states.start + states.gap,
        "left_out": list(states.left_out),
        "states": rows,
    }


def _print_patched(states: Patched) -> None:
    import numpy as np

    moved, parts = states.moved, states.parts
    furthest = "moves it furthest" if np.isnan(parts).all() else "brings it furthest towards that"
    stdout.print(
        f"{states.measured}: {signed(states.start, 2)} in text 1, {signed(states.start + states.gap, 2)} in text 2; "
        f"which state of text 2, put into text 1, {furthest}:"
    )
    rows = [
        {
            "entering layer": layer,
            "position": place,
            "token": states.tokens[place],
            "of text 2": states.donors[place],
            "change": signed(float(moved[layer, place]), 2),
            "part": "" if math.isnan(parts[layer, place]) else f"{round(parts[layer, place], 2) + 0.0:.0%}",
        }
        for layer, place in enumerate(states.strongest())
    ]
    print_table("", rows)
    if states.left_out:
        stdout.print(f"of text 2 not put in, as text 1 has no place for it: {', '.join(states.left_out)}")
