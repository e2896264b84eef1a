"""`explain`: prediction, route and decisive words of typed texts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrp.cli.options import AsJson, Device, Scored, check_has_task
from shrp.cli.output import print_json, print_table, provenance, stderr, stdout
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError

if TYPE_CHECKING:
    from shrp.analysis.attribution.tokens import WordScores
    from shrp.analysis.explore import Exploration
    from shrp.analysis.patching import Patched
    from shrp.checkpoints.checkpoint import Checkpoint

_SHOWN = 20  # words of a text in a terminal; the JSON has all


def explain(
    checkpoint: Scored,
    text: Annotated[
        list[str], typer.Option(help="A text; write a pair as A ||| B. Repeat for several texts.")
    ],
    output: Annotated[
        str | None, typer.Option(help="Class whose logit to explain [default: the predicted one]")
    ] = None,
    rather_than: Annotated[
        str | None, typer.Option(help="Explain the lead over this class's logit instead.")
    ] = None,
    patched: Annotated[
        bool,
        typer.Option("--patched", help="Also patch each hidden state of the second text into the first."),
    ] = False,
    words: Annotated[bool, typer.Option(help="Also what the logit loses without each word.")] = True,
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Explain texts that you type: the prediction, the expert that each layer takes, and the decisive words.

    Words are masked one at a time, and the model routes what is left again; in long texts it is phrases or sentences.
    """
    from shrp.analysis.explore import explore
    from shrp.analysis.patching import patch
    from shrp.checkpoints.checkpoint import load
    from shrp.model.convert import expert_layers

    loaded = load(checkpoint, device=device)
    task = loaded.info.task
    check_has_task(task)
    texts = [_parts(one, task) for one in text]
    for name in (output, rather_than):
        if name is not None and name not in task.label_names:
            known = ", ".join(task.label_names) or "none, it is a regression"
            raise DataError(f"'{name}' is no class of '{task.name}'; its classes are: {known}.")
    if output is not None and output == rather_than:
        raise DataError("--output and --rather-than must be two classes.")
    if patched and len(texts) != 2:
        raise DataError(f"--patched needs two texts: give --text twice, not {len(texts)} times.")
    found = explore(loaded.model, loaded.tokenizer, task, texts)
    replaced_by = "pad" if loaded.tokenizer.mask_token_id is None else "mask"
    rival = None if rather_than is None else task.label_names.index(rather_than)
    routed = bool(expert_layers(loaded.model))
    inputs, tables = [], []
    for one in found:
        which = one.prediction if output is None else task.label_names.index(output)
        less = None if which == rival else rival
        scores = _word_scores(loaded, one, which, less, replaced_by) if words else None
        inputs.append(_as_json(one, scores, which, less, replaced_by, routed=routed))
        tables.append(scores)
    cut = loaded.info.max_length
    if longer := sum(len(one.tokens) > cut for one in found):
        stderr.print(
            f"{longer:,} of {len(found):,} texts are longer than {cut:,} tokens, where `evaluate` cuts them"
        )
    states = patch(loaded.model, loaded.tokenizer, task, *texts) if patched else None
    if json:
        made = provenance(loaded, TextData(task, "typed", tuple(texts)), loaded.tokenizer.model_max_length)
        extra = {} if states is None else {"patched": _patched_as_json(states)}
        print_json({"inputs": inputs} | extra | {"provenance": made})
        return
    for number, (one, told, scores) in enumerate(zip(found, inputs, tables, strict=True), 1):
        _print(number, one, told, scores)
    if states is not None:
        _print_patched(states)


def _parts(text: str, task: Task) -> tuple[str, ...]:
    """The texts of one example; raise `DataError` if there are too few or too many."""
    from shrp.analysis.explore import PAIR_SEPARATOR, split_sentences

    inputs, _ = split_sentences(" ".join(text.split()), task)
    if inputs:
        return inputs[0]
    two = len(task.text_columns) == 2
    wanted = f" {PAIR_SEPARATOR} ".join(task.text_columns) if two else "some text"
    raise DataError(f"--text '{text[:60]}' is no example of '{task.name}': give {wanted}.")


def _word_scores(
    loaded: Checkpoint, one: Exploration, output: int, less: int | None, replaced_by: str
) -> WordScores | None:
    """What the logit, minus that of `less`, loses without each word; None if there is no word."""
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


def _as_json(
    one: Exploration,
    scores: WordScores | None,
    which: int,
    less: int | None,
    replaced_by: str,
    *,
    routed: bool,
) -> dict[str, Any]:
    task = one.task
    names = task.label_names or ("output",)
    outputs = dict(zip(names, map(float, one.probabilities), strict=True))
    found: dict[str, Any] = {
        "text": list(one.text),
        "answer": float(one.logits[0]) if task.is_regression else one.answer,
        ("outputs" if task.is_regression else "probabilities"): outputs,
        "logits": one.logits,
        "tokens_read": len(one.tokens),
        "tokens": one.full_length,
        "unknown_tokens": one.unknown,
    }
    if routed:
        frame = one.choices()
        frame.columns = [name.replace("its probability", "runner_up_probability") for name in frame.columns]
        frame.columns = [name.replace(" ", "_").replace("-", "_") for name in frame.columns]
        found["route_of"] = "tokens (means)" if one.by_token else "the example"
        found["route"] = frame.to_dict("records")
        for row in found["route"]:
            if "with_it" in row:
                row["with_it"] = one.with_it(row["layer"])
    if scores is not None:
        rerouted = scores.rerouted if routed else None
        found["words"] = {
            "unit": scores.unit,
            "of": names[which] if task.label_names else "output",
            "rather_than": None if less is None else task.label_names[less],
            "method": scores.method,
            "replaced_by": replaced_by,
            "full": scores.full,
            "scores": [
                {"text": word.text, "part": word.part + 1, "score": score}
                | ({} if rerouted is None else {"layers_rerouted": rerouted[i]})
                for i, (word, score) in enumerate(zip(scores.words, scores.scores, strict=True))
            ],
        }
    return found


def _print(number: int, one: Exploration, told: dict[str, Any], scores: WordScores | None) -> None:
    stdout.print(f"{number}. {' / '.join(one.text)}")
    read = f"{len(one.tokens):,} tokens read" + f" of {one.full_length:,}" * one.truncated
    if one.task.is_regression:
        stdout.print(f"   {one.answer}; {read}")
    else:
        ranked = sorted(told["probabilities"].items(), key=lambda each: -each[1])
        stdout.print(f"   {', '.join(f'{name} {p:.1%}' for name, p in ranked)}; {read}")
    print_table("route" + ", means over tokens" * one.by_token, told.get("route", []))
    if scores is not None:
        words = told["words"]
        of = "output" if one.task.is_regression else f"logit of {words['of']}"
        of += "" if words["rather_than"] is None else f" minus that of {words['rather_than']}"
        rows = sorted(words["scores"], key=lambda row: -abs(float(row["score"])))[:_SHOWN]
        rows = [
            {scores.unit: row.pop("text"), "loses": float(row.pop("score"))} | row for row in map(dict, rows)
        ]
        print_table(f"what the {of}, {scores.full:.2f}, loses without each {scores.unit}", rows)


def _patched_as_json(states: Patched) -> dict[str, Any]:
    names = states.task.label_names or ("output",)
    of, rather_than = (
        ("output", None) if states.contrast is None else (names[label] for label in states.contrast)
    )
    columns = ["layer", "position", "token", "from", "change", "part of the gap"]
    frame = states.to_frame()[columns].rename(columns=lambda name: name.replace(" ", "_"))
    rows = frame.to_dict("records")
    for row in rows:
        logits = states.logits[row["layer"], row["position"]]
        row["logits"] = dict(zip(names, map(float, logits), strict=True))
        if states.rerouted is not None:
            row["layers_rerouted"] = states.rerouted[row["layer"], row["position"]]
    return {
        "into": 1,
        "from": 2,
        "of": of,
        "rather_than": rather_than,
        "own": states.start,
        "other": states.start + states.gap,
        "left_out": list(states.left_out),
        "states": rows,
    }


def _print_patched(states: Patched) -> None:
    stdout.print(
        f"{states.measured}: {states.start:+.2f} in text 1, {states.start + states.gap:+.2f} in text 2; the state of "
        "text 2 that moves text 1 furthest, per layer:"
    )
    moved, parts = states.moved, states.parts
    rows = []
    for layer, place in enumerate(states.strongest()):
        part = float(parts[layer, place])
        rows.append(
            {
                "entering layer": layer,
                "position": place,
                "token": states.tokens[place],
                "of text 2": states.donors[place],
                "change": f"{float(moved[layer, place]):+.2f}",
                "part of the gap": "" if math.isnan(part) else f"{part:.0%}",
            }
        )
    print_table("", rows)
    if states.left_out:
        stdout.print(f"not patched, since text 1 has no place for them: {', '.join(states.left_out)}")
