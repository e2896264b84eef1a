"""A checkpoint's model card: what it is, its training, its scores and those of its controls, its limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from transformers import PreTrainedModel

from shrp.analysis.usage import COLLAPSE_EXPERTS, effective_experts
from shrp.checkpoints.info import HEADS, PLAN_FILE, CheckpointInfo, usage_in
from shrp.checkpoints.score_rows import score_frame, with_shares
from shrp.evaluation.costs import TOKENS
from shrp.phrases import counted
from shrp.pruning.plan import PruningPlan

_LICENCE, _DERIVED = "## Licence", "Weights derive from"
_SETTINGS = {
    "batch_size": "batch size",
    "max_length": "most tokens",
    "learning_rate": "learning rate, pretrained",
    "new_learning_rate": "learning rate, new parts",
    "balance": "balance loss, weight",
    "distill_logits": "distilled logits, share",
    "distill_hidden": "distilled hidden states, weight",
    "temperature": "temperature",
    "seed": "seed",
}
def licence_in(text: str, base: str) -> str:
    """The licence in the card of a checkpoint of this base; empty where it has none."""
    _, _, after = text.partition(f"\n{_LICENCE}\n\n{_DERIVED} {base}: ")
    return after.split("\n", 1)[0]


def card(name: str, info: CheckpointInfo, model: PreTrainedModel, licence: str = "") -> str:
    """The card as Markdown; every figure in it comes from the checkpoint itself."""
    lines = [f"# {name}", "", description(info), "", "## Training", ""]
    if facts := training_facts(info.training, info.plan):
        lines += [*_table(("setting", "value"), facts), ""]
    else:
        lines += ["Nothing was stored about its training.", ""]
    if info.plan is not None:
        kept = kept_experts(info.plan)
        lines += [*_table(kept.columns, kept.itertuples(index=False)), ""]
    lines += ["## Scores", "", *_scores(info, model)]
    lines += ["## Limits", "", *(f"- {text}" for text in limits(info)), ""]
    pair = '("A question?", "A text.")' if info.task.on_spans else '("One text.", "Another.")'
    example = '"A text."' if len(info.task.text_columns) == 1 else pair
    lines += [
        *("## Use", "", "    import shrp"),
        f'    checkpoint = shrp.load("{name}")    # the path of this folder',
        f"    checkpoint.predict([{example}])",
        *("", "Or, once `shrp` is imported:", ""),
        f'    AutoModel{HEADS[info.task.kind]}.from_pretrained("{name}")',
        "",
    ]
    if licence:
        lines += [_LICENCE, "", f"{_DERIVED} {info.base_model}: {licence}", ""]
    return "\n".join(lines)


def kept_experts(plan: PruningPlan) -> pd.DataFrame:
    """What a plan keeps: a row a layer, its experts with the weights that took the router's place."""
    rows = []
    for layer, p in plan.layers:
        kept = ", ".join(f"{e} ({w:.2f})" for e, w in zip(p.experts, p.weights, strict=True))
        rows.append((layer, len(p.experts), kept))
    return pd.DataFrame(rows, columns=["layer", "experts kept", "experts (weight)"])


def as_html(markdown: str) -> str:
    """A card as a page of its own, without the HTML that names in it may hold."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    style = "body{font-family:sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em .6em}"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Model card</title><style>{style}</style>\n'
        f"{body}</html>\n"
    )


def description(info: CheckpointInfo) -> str:
    """Task, base, layers and routing in a sentence."""
    start = f"Task {info.task.name}; base: {info.base_model}"
    if not info.config.layers:
        return f"{start}; dense: no layer is converted."
    state = "pruned to a static model" if info.plan else "routed"
    layers = ", ".join(map(str, info.config.layers))
    return f"{start}; {state}; converted layers: {layers}; {info.config.routing} routing, Top-{info.config.top_k}."


def training_facts(training: Mapping[str, Any], plan: PruningPlan | None = None) -> list[tuple[str, str]]:
    """What a checkpoint stores of its training, as pairs of name and value."""
    on_texts = converted(training)
    facts = [("training", "elsewhere" if training.get("adopted") else ""), ("layers", on_texts)]
    facts += _trained(training, balance=not on_texts or "converted" not in training)
    if plan is not None:
        facts += [("pruned to", f"{counted(plan.budget, 'expert')} in all"), ("experts", _picked(training, plan))]
    for key, name in (("chosen_on", "experts selected on"), ("shares_matched", "threshold calibrated on")):
        if found := training.get(key):
            facts.append((name, f"{found['data']}, n = {found['n']:,}"))
    if found := training.get("vocabulary"):
        value = f"{found['kept']:,} of {found['size']:,} tokens, those in {found['counted_on']}"
        facts.append(("vocabulary", value))
    facts = [(name, value) for name, value in facts if value]
    further = training.get("recovery") or {}
    if "pruning" in training and "final_size" in further:
        sources = _of(training.get("recovery_sources"))
        facts.append(("after pruning", f"fine-tuned on {further['final_size']:,} unlabelled texts{sources}"))
    on_task = further if further.get("train_data") else {}
    return facts + [(f"after pruning, {name}", value) for name, value in _trained(on_task)]


def _trained(training: Mapping[str, Any], *, balance: bool = True) -> list[tuple[str, str]]:
    """The data, settings and time of one training on the task.

    Args:
        balance: whether the balance loss was used, as it is not after a conversion on texts.
    """
    facts, config = [], training.get("config") or {}
    if name := training.get("recipe"):
        facts.append(("recipe", str(name)))
    if name := training.get("train_data"):
        facts.append(("trained on", f"{name}, n = {training.get('train_examples') or 0:,}"))
    if name := training.get("validation_data"):
        facts.append(("validated on", str(name)))
    if (epochs := training.get("epochs")) is not None:
        most = f", of at most {config['epoch_size']:,} examples" if config.get("epoch_size") else ""
        facts.append(("epochs", f"{epochs}{most}"))
    for key, label in _SETTINGS.items():
        value = config.get(key) if balance or key != "balance" else None
        if isinstance(value, (int, float)):
            facts.append((label, str(value) if isinstance(value, int) else f"{value:g}"))
    if (seconds := training.get("seconds")) is not None:
        facts.append(("time", f"{seconds / 60:.1f} min"))
    return facts


def converted(training: Mapping[str, Any]) -> str:
    """On what `shrp convert` converted the layers; empty where it did not."""
    made = training.get("converted", training)
    if "texts" not in made:
        return ""
    further = made.get("recovery") or {}
    pruned = f", pruned and fine-tuned on {further['final_size']:,}" if "final_size" in further else ""
    return f"converted on {made['texts']:,} unlabelled texts{_of(made.get('sources'))}{pruned}"


def _of(sources: Sequence[str] | None) -> str:
    return f" (of {', '.join(sources)})" if sources else ""


def _picked(training: Mapping[str, Any], plan: PruningPlan) -> str:
    """How the experts that are kept were selected and weighted, and on which data."""
    asked = training.get("pruning", {})
    how = f"by {plan.selection.replace('_', ' ')}, weights: {plan.combination}"
    if training.get("chosen_by") == PLAN_FILE:
        return f"{how}, from {PLAN_FILE}" + (f" ({asked['plan_file']})" if "plan_file" in asked else "")
    if "counted_on" in asked:
        return f"{how}, measured on {asked['counted_on']} (n = {asked.get('counted_n', 0):,})"
    return how


def limits(info: CheckpointInfo) -> list[str]:
    """What a reader must not conclude."""
    chosen = "Scores on data that its experts were selected on are slightly optimistic."
    if info.plan is not None and info.plan.selection.startswith("random"):
        chosen = "Its experts were selected at random, as a control."
    found = [
        *([chosen] if info.config.layers else []),
        "One seed: intervals are over examples, and another training may differ by more.",
        "Shares of parameters and FLOPs can be compared with other encoders of as many layers and heads; scores can't "
        "be compared with those of another base.",
    ]
    if matched := info.training.get("shares_matched"):
        found.append(
            f"Its threshold was calibrated: on {matched['data']} (n = {matched['n']:,}) it predicts each class as often "
            "as the routed model. On other data the class frequencies may differ."
        )
    for layer, share in sorted(usage_in(info).items()) if info.usage else ():
        if (effective := effective_experts(share)) < COLLAPSE_EXPERTS:
            found.append(
                f"Layer {layer} uses {effective:.2f} effective experts of {len(share)} on the validation data. Below "
                f"{COLLAPSE_EXPERTS} counts as collapsed: the router hardly decides anything."
            )
    return [*found, "It was trained to study a method, not to decide anything about people."]


def _scores(info: CheckpointInfo, model: PreTrainedModel) -> list[str]:
    """For each data set the table of scores."""
    found = [row for row in info.scores if row.get("score") is not None]
    if not found:
        return ["No scores were stored with it.", ""]
    lines = [
        "“Of teacher” is the score divided by the dense teacher's on the same data; parameters and FLOPs are "
        f"shares of the dense model's (FLOPs at {TOKENS} tokens).",
        "",
    ]
    for data in dict.fromkeys(row["data"] for row in found):
        rows = [row for row in found if row["data"] == data]
        lines += [f"### On {data} (n = {rows[0]['n']:,})", ""]
        if info.config.layers and all(row["kind"] == "teacher" for row in rows):
            # A verdict on the teacher alone would read as one on this model.
            lines += ["Only the dense teacher was scored on these data, not this model.", ""]
        elif floor := [row["constant"] for row in rows if row.get("constant") is not None]:
            lines += [f"Majority-class baseline: {floor[0]:.4f}.", ""]
        lines += [*_score_table(rows, info, model), ""]
    return lines


def _score_table(rows: Sequence[Mapping[str, Any]], info: CheckpointInfo, model: PreTrainedModel) -> list[str]:
    costs = {"encoder_params": "encoder parameters", "model_params": "model parameters", "encoder_flops": "encoder FLOPs"}
    body = []
    for row in with_shares(score_frame(rows), info, model).to_dict("records"):
        low, high, shares = row["low"], row["high"], [row[name] for name in costs]
        note = "" if row["interval_is"] == "95%" else f" ({row['interval_is']})"
        named = f"control: {row['model']}" if row["kind"] == "control" else row["model"]
        interval = f"{low:.4f} to {high:.4f}{note}" if low == low else "–"
        retained = "–" if pd.isna(row["retained"]) else f"{row['retained']:.1%}"
        body.append((named, f"{row['score']:.4f}", interval, retained, *(f"{x:.1%}" if x == x else "" for x in shares)))
    return _table(("model", rows[0]["metric"], "interval", "of teacher", *costs.values()), body)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table in Markdown."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]
