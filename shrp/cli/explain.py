"""`explain`: prediction, route and decisive words of typed texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from shrp.cli.options import AsJson, Device, Loaded, check_has_task
from shrp.cli.output import print_json, print_table, records, stderr, stdout
from shrp.data.tasks import Task
from shrp.data.text_data import TextData
from shrp.errors import DataError

if TYPE_CHECKING:
    from shrp.analysis.attribution.tokens import WordScores
    from shrp.analysis.explore import Exploration
    from shrp.checkpoints.checkpoint import Checkpoint

_SHOWN = 20  # words of a text in a terminal; the JSON has all


def explain(
    checkpoint: Loaded,
    text: Annotated[list[str], Option(help="A text, or a pair as A ||| B. Repeat for several.")],
    device: Device = "cpu",
    json: AsJson = False,
) -> None:
    """Explain texts that you type: the prediction, the expert that each layer takes, and the decisive words.

    Words are masked one at a time, and the model routes what is left again; in long texts it is pieces of several words.
    """
    from shrp.analysis.explore import explore
    from shrp.checkpoints.checkpoint import load
    from shrp.cli.subjects import provenance

    loaded = load(checkpoint, device=device)
    task = loaded.info.task
    check_has_task(task)
    texts = [_parts(one, task) for one in text]
    found = explore(loaded.model, loaded.tokenizer, task, texts)
    inputs = [_input(loaded, one) for one in found]
    cut = loaded.info.max_length
    if longer := sum(len(one.tokens) > cut for one in found):
        stderr.print(
            f"{longer:,} of {len(found):,} texts are longer than {cut:,} tokens, where `evaluate` cuts them"
        )
    if json:
        typed = TextData(task, "typed", tuple(texts))
        made = provenance(loaded, typed, loaded.tokenizer.model_max_length)
        print_json({"inputs": inputs, "provenance": made})
        return
    for number, (one, told) in enumerate(zip(found, inputs, strict=True), 1):
        _print(number, one, told)


def _parts(text: str, task: Task) -> tuple[str, ...]:
    """The texts of one example; raise `DataError` if there are too few or too many."""
    from shrp.data.typed import PAIR_SEPARATOR, split_sentences

    inputs, _ = split_sentences(" ".join(text.split()), task)
    if inputs:
        return inputs[0]
    wanted = f" {PAIR_SEPARATOR} ".join(task.text_columns)
    raise DataError(f"--text '{text[:60]}' is no example of '{task.name}': give {wanted}.")


def _input(loaded: Checkpoint, one: Exploration) -> dict[str, Any]:
    """What is told of one text."""
    from shrp.model.convert import expert_layers

    task, routed = one.task, bool(expert_layers(loaded.model))
    names = () if task.on_tokens else task.label_names or ("output",)  # words and spans have none of the whole text
    outputs = {name: float(one.probabilities[i]) for i, name in enumerate(names)}
    told: dict[str, Any] = {
        "text": list(one.text),
        "answer": float(one.logits[0]) if task.is_regression else one.answer,
        ("outputs" if task.is_regression else "probabilities"): outputs,
        **({"characters": one.span} if task.on_spans else {"logits": one.logits}),
        "tokens_read": len(one.tokens),
        "tokens": one.full_length,
        "unknown_tokens": one.unknown,
    }
    if routed:
        told["route_of"] = "tokens (means)" if one.by_token else "the example"
        told["route"] = records(one.choices().rename(columns={"its probability": "runner_up_probability"}))
        for row in told["route"]:
            if "with_it" in row:
                row["with_it"] = one.with_it(row["layer"])
    replaced_by = "pad" if loaded.tokenizer.mask_token_id is None else "mask"
    if scores := _word_scores(loaded, one):
        told["words"] = {
            "unit": scores.unit,
            "of": "output" if task.is_regression else one.answer,
            "method": scores.method,
            "replaced_by": replaced_by,
            "full": scores.full,
            "scores": [
                {"text": word.text, "part": word.part + 1, "score": float(score)}
                | ({"layers_rerouted": int(scores.rerouted[i])} if routed else {})
                for i, (word, score) in enumerate(zip(scores.words, scores.scores, strict=True))
            ],
        }
    return told


def _word_scores(loaded: Checkpoint, one: Exploration) -> WordScores | None:
    """What the predicted class's logit loses without each word; None if there is no word."""
    from shrp.analysis.attribution.instance import in_pieces, prepare
    from shrp.analysis.attribution.tokens import ablate_words

    try:
        instance = prepare(loaded.model, loaded.tokenizer, one.task, one.text)
    except DataError as error:
        stderr.print(f"no words of '{' / '.join(one.text)[:60]}': {error}")
        return None
    output = 0 if one.task.is_regression else one.task.label_names.index(one.answer)
    return ablate_words(in_pieces(instance), output)


def _print(number: int, one: Exploration, told: dict[str, Any]) -> None:
    stdout.print(f"{number}. {' / '.join(one.text)}")
    ranked = sorted(told.get("probabilities", {}).items(), key=lambda each: -each[1])
    answer = ", ".join(f"{name} {p:.1%}" for name, p in ranked) or one.answer
    stdout.print(f"   {answer}; {len(one.tokens):,} tokens read" + f" of {one.full_length:,}" * one.truncated)
    print_table("route" + ", means over tokens" * one.by_token, told.get("route", []))
    if words := told.get("words"):
        of = "output" if one.task.is_regression else f"logit of {words['of']}"
        rows = [row | {words["unit"]: row["text"], "loses": row["score"]} for row in words["scores"]]
        rerouted = ("layers_rerouted",) if "layers_rerouted" in rows[0] else ()
        print_table(
            f"what the {of}, {words['full']:.2f}, loses without each {words['unit']}",
            sorted(rows, key=lambda row: -abs(row["loses"]))[:_SHOWN],
            (words["unit"], "loses", "part", *rerouted),
        )
