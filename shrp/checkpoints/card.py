"""A checkpoint's model card: what it is, how it was made, what it scores beside its controls, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shrp.analysis.usage import COLLAPSE_EXPERTS, effective_experts
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import CARD as CARD
from shrp.checkpoints.info import PLAN_FILE, CheckpointInfo, check_training, read_history, usage_in
from shrp.checkpoints.score_rows import row_cost
from shrp.errors import CheckpointError, ShrpError
from shrp.evaluation.costs import TOKENS, dense_cost
from shrp.evaluation.statistics import stored_interval
from shrp.evaluation.verdicts import HOW_COMPARED, score_frame, summary, verdicts
from shrp.phrases import counted
from shrp.pruning.plan import PruningPlan
from shrp.training.config import RECIPES, TrainConfig

_LICENCE, _DERIVED = "## Licence", "Weights derive from"


def licence_in(text: str, base: str) -> str:
    """The licence that a card of a checkpoint of this base tells; empty where it tells none. The weights don't."""
    _, _, after = text.partition(f"\n{_LICENCE}\n\n{_DERIVED} {base}: ")
    return after.split("\n", 1)[0]


def card(name: str, loaded: Checkpoint, licence: str = "") -> str:
    """The card as Markdown; every figure in it comes from the checkpoint itself.

    Args:
        licence: of the base's weights, in words.
    """
    info = loaded.info
    lines = [f"# {name}", "", description(info), "", "## How it was made", "", made(loaded), ""]
    if info.plan is not None:
        lines += [*kept_table(info.plan), ""]
    lines += ["## Scores", ""]
    if scored(info):
        lines += [
            "“Of teacher” is the score divided by the dense teacher's on the same data; parameters and FLOPs are "
            f"shares of the dense model's (FLOPs at {TOKENS} tokens). {HOW_COMPARED}",
            "",
            *score_sections(loaded),
        ]
    else:
        lines += ["No scores were stored with it.", ""]
    lines += ["## Limits", "", *(f"- {text}" for text in limits(info)), ""]
    lines += [
        "## Use",
        "",
        "    import shrp",
        f'    checkpoint = shrp.load("{name}")    # the path of this folder; unpickles nothing, runs no code of it',
        f"    checkpoint.predict([{_example(info)}])    # a table of answers; texts are cut where these scores cut "
        "them",
        "",
        "Or, once `shrp` is imported, as any model of Hugging Face's:",
        "",
        f'    AutoModelForSequenceClassification.from_pretrained("{name}")',
        "",
    ]
    if licence:
        lines += [_LICENCE, "", f"{_DERIVED} {info.base_model}: {licence}", ""]
    return "\n".join(lines)


def as_html(markdown: str) -> str:
    """A card as a page of its own. Names in it may be a stranger's: no markup of theirs counts."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    style = "body{font-family:sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em .6em}"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Model card</title><style>{style}</style>\n'
        f"{body}</html>\n"
    )


def _example(info: CheckpointInfo) -> str:
    """What `predict` takes of such a task."""
    return '"A text."' if len(info.task.text_columns) == 1 else '("One text.", "Another.")'


def description(info: CheckpointInfo) -> str:
    """Task, base, layers and routing in a sentence or two."""
    start = f"Task {info.task.name}; base: {info.base_model}"
    if not info.config.layers:
        return f"{start}; dense: no layer is converted."
    state = "pruned to a static model" if info.plan else "routed"
    return (
        f"{start}; {state}; converted layers: "
        f"{', '.join(map(str, info.config.layers))}; {info.config.routing} routing, Top-{info.config.top_k}."
    )


def made(loaded: Checkpoint) -> str:
    """How a checkpoint was made: on texts, if so, then on the task, and with which settings; then how it was pruned."""
    training = loaded.info.training
    texts = "" if converted(training) else texts_in(read_history(loaded.path))  # the history alone may tell
    texts = f"{texts} Then:" if texts else ""
    parts = (
        texts,
        trained(training),
        settings(training.get("config", {})),
        pruned(loaded.info),
        trimmed(training),
    )
    return " ".join(filter(None, parts))


def limits(info: CheckpointInfo) -> list[str]:
    """What a reader must not conclude."""
    found = [
        *([_how_chosen(info)] if info.config.layers else []),
        "Shares of parameters and FLOPs can be compared with other encoders of as many layers and heads; scores can't "
        "be compared with those of another base.",
    ]
    sets: dict[str, dict[str, float]] = {}
    for row in scored(info):
        if row["kind"] in ("teacher", "routed"):
            sets.setdefault(str(row["data"]), {})[str(row["kind"])] = float(row["score"])
    for data, of in sets.items():
        if data.startswith("probe/") and len(of) == 2:
            found.append(
                f"On {data}, written to be hard and outside the training data, the teacher has {of['teacher']:.3f} and "
                f"the routed model {of['routed']:.3f}."
            )
    if matched := info.training.get("shares_matched"):
        found.append(
            f"Its output bias was shifted so that it gives each class as often as the routed model does on "
            f"{matched['data']} (n = {matched['n']:,}), without their labels: elsewhere classes may come more or less "
            "often."
        )
    found += collapsed(info)
    return [*found, "It was trained to study a method, not to decide anything about people."]


def _how_chosen(info: CheckpointInfo) -> str:
    """What the choice of experts means for the scores."""
    if info.plan is not None and info.plan.selection.startswith("random"):
        return "Its experts were drawn at random, as a control."
    if info.plan is not None and info.training.get("chosen_by") == PLAN_FILE:
        return (
            "Its experts were given by a plan from a file, which does not say by which data they were chosen."
        )
    if chosen := info.training.get("chosen_on"):
        return (
            f"Its experts were chosen on {chosen['data']} (n = {chosen['n']:,}); scores on these same inputs are "
            "slightly optimistic."
        )
    if chosen_on_texts(info):
        return "Its experts were chosen by their usage on the unlabelled texts; no validation data had a part in that."
    if (task := usage_of(info)) and task != info.task.name:
        return f"Its experts were chosen by their usage on validation data of {task}."
    counted_on = info.training.get("validation_data")
    own = {row.get("data") for row in info.scores if row["kind"] in ("static", "control")} - {None}
    if info.plan is not None and counted_on and own and counted_on not in own:
        return f"Its experts were chosen by their usage on {counted_on}, of which none of its scores is."
    return (
        "Usage, and so the choice of experts, comes from the same validation data as the score, as in the paper: "
        "scores of pruned models are slightly optimistic."
    )


def collapsed(info: CheckpointInfo) -> list[str]:
    """A sentence for each layer whose router decides next to nothing (docs/method.md, failure signatures)."""
    found = []
    for layer, share in sorted(usage_in(info).items()) if info.usage else ():
        if (effective := effective_experts(share)) < COLLAPSE_EXPERTS:
            found.append(
                f"Layer {layer} uses {effective:.2f} effective experts of {len(share)} on the validation data (below "
                f"{COLLAPSE_EXPERTS}, which counts as collapsed): its router decides next to nothing."
            )
    return found


def trained(training: Mapping[str, Any]) -> str:
    """On what and how a checkpoint was trained."""
    before = converted(training)
    if training.get("adopted"):
        return "Taken as it was; how it was trained is not known here."
    if training.get("train_examples") is None:
        return before or "Nothing was stored about its training."
    then = f"{before} Then: " if before else ""
    return (
        f"{then}{_recipe(training)}Trained on {learned(training)}; one seed: intervals are over inputs, and another "
        f"training may differ by more.{distilled(training)}"
    )


def settings(config: Mapping[str, Any]) -> str:
    """The settings of a training that its scores depend on, in a sentence; empty where they can't be read."""
    used = _config(config)
    if used is None:
        return ""
    parts = [
        f"Learning rates {used.learning_rate:g} and, for Routers and Expanders, {used.new_learning_rate:g}",
        f"batches of {used.batch_size}, at most {used.max_length} tokens",
        f"{'with' if used.dropout else 'without'} dropout",
        f"dense layers {'stayed as the teacher has them' if used.freeze_dense else 'learned too'}",
    ]
    if used.freeze_embeddings:
        parts.append("embeddings frozen")
    if used.shrp.layers:
        fitted = used.expander_init == "least_squares"
        parts.append(
            f"Expanders started {'from a least-squares fit' if fitted else 'at random, near the identity'}"
        )
    return "; ".join(parts) + "."


def converted(training: Mapping[str, Any]) -> str:
    """How `shrp convert` made the layers, in a sentence; empty where it did not, or what it stored can't be read."""
    made = training.get("converted", training)
    try:
        config, texts = made["config"], made["texts"]
        earlier, pruned = f"{converted(made['earlier'])} Then: " if made.get("earlier") else "", ""
        if further := made.get("recovery"):
            how = "there by usage on them"
            if made.get("selection") == "random":
                how = "to experts drawn at random"
            elif task := made.get("usage_of"):
                how = f"to the experts that a routed model of {task} uses most"
            others = _of(made.get("recovery_sources"), made.get("sources"))
            pruned = f"; pruned {how}, and trained on with {further['final_size']:,}{others}"
        of = _of(made.get("sources"), (made.get("earlier") or {}).get("sources"))
        return (
            f"{earlier}Converted on {texts:,} unlabelled texts{of}, {config['conversion_size']:,} for each of "
            f"{counted(len(config['shrp']['layers']), 'layer')} and {config['final_size']:,} for all{pruned} "
            f"(seed {config['seed']})."
        )
    except (KeyError, TypeError, ValueError, AttributeError):  # a checkpoint may come from anywhere
        return ""


def texts_in(history: Sequence[Mapping[str, Any]]) -> str:
    """What a history says of epochs on unlabelled texts, in a sentence; empty where there were none."""
    rows = [row for row in history if row.get("texts")]
    if not rows:
        return ""
    layers = [row for row in rows if row.get("converted_layer") is not None]
    seen = sum(row["texts"] for row in rows)
    return f"Converted on unlabelled texts, {counted(len(layers), 'layer')} with {seen:,} texts in all."


def recovered_on_texts(info: CheckpointInfo) -> bool:
    """Whether a static checkpoint was pruned and trained on with unlabelled texts, before its task."""
    made = info.training.get("converted", info.training)
    return info.plan is not None and bool(converted(info.training)) and "recovery" in made


def chosen_on_texts(info: CheckpointInfo) -> bool:
    """Whether its experts were also chosen there, and not by the usage of a task's routed model."""
    made = info.training.get("converted", info.training)
    return recovered_on_texts(info) and not {"usage_of", "selection"} & set(made)


def usage_of(info: CheckpointInfo) -> str | None:
    """The task whose routed model's usage chose the experts before they learned on from texts, if one did."""
    return info.training.get("converted", info.training).get("usage_of")


def recovery_of(training: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored of a training on the task after pruning; empty where there was none, or it can't be read."""
    try:
        found = check_training(training.get("recovery") or {})
    except CheckpointError:  # a checkpoint may come from anywhere
        return {}
    return found if "train_data" in found and "train_examples" in found else {}  # else it was on texts


def learned(training: Mapping[str, Any]) -> str:
    """The data of a training and how it went over them."""
    examples, config = training["train_examples"], training.get("config", {})
    size = f"{config['epoch_size']:,} an epoch at most, " if config.get("epoch_size") else ""
    precision = f", {training['precision']}" if training.get("precision") else ""
    epochs = f"{counted(training['epochs'], 'epoch')}, " if "epochs" in training else ""
    return (
        f"{training.get('train_data')} ({examples:,} examples, {size}{epochs}seed {config.get('seed')}{precision}), "
        f"validated on {training.get('validation_data')}"
    )


def distilled(training: Mapping[str, Any]) -> str:
    """What of the teacher was distilled, as a sentence after another; empty for nothing."""
    config = training.get("config", {})
    distilled = [
        text
        for key, text in (("distill_logits", "logits"), ("distill_hidden", "hidden states"))
        if config.get(key)
    ]
    return f" Distilled from the dense teacher's {' and '.join(distilled)}." if distilled else ""


def _recipe(training: Mapping[str, Any]) -> str:
    """The recipe's name, and where the training had other settings than the recipe of that name has now."""
    name, used = training.get("recipe"), _config(training.get("config", {}))
    if not name:
        return ""
    changed = [
        key.replace("_", " ")
        for key, value in RECIPES.get(str(name), {}).items()
        if used is not None and getattr(used, key) != value
    ]
    return f"Recipe `{name}`" + (f", but for {', '.join(changed)}" if changed else "") + ". "


def _config(config: Mapping[str, Any]) -> TrainConfig | None:
    """The stored config; None where it is not whole or not valid, as a checkpoint may come from anywhere."""
    if not {"learning_rate", "new_learning_rate", "batch_size", "dropout", "shrp"} <= set(config):
        return None  # defaults would be told as if they had been used
    try:
        return TrainConfig.from_dict(dict(config))
    except (ShrpError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _of(sources: Sequence[str] | None, said: Sequence[str] | None) -> str:
    """Where texts come from, in brackets; nothing where that is not known or was said before."""
    return f" (of {', '.join(sources)})" if sources and sources != said else ""


_PICKED = {
    "usage": "by usage",
    "gate_norm": "by gate x output norm",
    "ablation": "by what knocking each out changes",
    "fitted": "by gates fitted on texts",
    "random": "at random",
}
_WEIGHED = {
    "usage": "weighted by usage",
    "mean": "weighted alike",
    "fitted": "weighted by the fitted gates",
    "given weights": "with weights given by hand or file",
}
_PRUNING = {
    **dict.fromkeys(("selection", "combination", "plan_file", "counted_on"), str),
    **dict.fromkeys(("budget", "per_layer", "seed", "counted_n"), int),
}
"""What `prune` stores in `training["pruning"]`, all of it optional, and of which types."""


def pruned(info: CheckpointInfo) -> str:
    """What is kept of the experts, how that was chosen, and how the rest was trained on, in sentences; empty where
    nothing was pruned.
    """
    if info.plan is None:
        return ""
    start = "Pruned to" if "pruned_from" in info.training else "It keeps"
    said = [f"{start} {kept(info.training, info.plan)}, {picked(info.training, info.plan)}."]
    if recovery := recovery_of(info.training):
        said += [f"After pruning trained on {learned(recovery)}.{distilled(recovery)}"]
        said += [settings(recovery.get("config", {}))]
    return " ".join(filter(None, said))


def trimmed(training: Mapping[str, Any]) -> str:
    """What is kept of the vocabulary, in a sentence; empty where all of it is."""
    if not (found := training.get("vocabulary")):
        return ""
    often = f" {found['min_count']:,} times or more" if found["min_count"] > 1 else ""
    common = f", the first {found['common']:,} words and pieces of the whole" if found["common"] else ""
    return (
        f"Its vocabulary has {found['kept']:,} of {found['size']:,} tokens: those that {found['counted_on']} "
        f"(n = {found['counted_n']:,}) has{often}{common}, special ones and single characters."
    )


def kept(training: Mapping[str, Any], plan: PruningPlan | None = None) -> str:
    """How many experts are kept, in words.

    Args:
        plan: what is kept; without one only what `training` says of it, which may be nothing.
    """
    asked = _pruning(training)
    if plan is None:
        if "per_layer" in asked:
            return f"{counted(asked['per_layer'], 'expert')} in each converted layer"
        return f"{counted(asked['budget'], 'expert')} in all" if "budget" in asked else ""
    counts = plan.keep_counts()
    if len(set(counts.values())) == 1:
        each = counted(next(iter(counts.values())), "expert")
        return f"{each} in each of {counted(len(counts), 'layer')} ({plan.budget} in all)"
    by_layer = ", ".join(f"{layer}: {count}" for layer, count in counts.items())
    return f"{counted(plan.budget, 'expert')} in all (by layer {by_layer})"


def picked(training: Mapping[str, Any], plan: PruningPlan | None = None) -> str:
    """How the experts that are kept were picked and are weighted, and by which data; empty where nothing says so.

    Args:
        plan: what is kept; without one only what `training` says of it.
    """
    asked = _pruning(training)
    selection = asked.get("selection") if plan is None else plan.selection
    combination = asked.get("combination") if plan is None else plan.combination
    if not selection:
        return ""
    rule, edited, _ = selection.partition(" with edits")
    how = f"picked {_PICKED.get(rule, 'as given')}"
    if rule == "random" and "seed" in asked:
        how += f" (seed {asked['seed']})"
    how += ", then edited by hand" * bool(edited)
    how += f", {_WEIGHED.get(combination, f'combined by {combination}')}"
    if training.get("chosen_by") == PLAN_FILE:
        name = f" ({asked['plan_file']})" if "plan_file" in asked else ""
        return f"{how}, as {PLAN_FILE}{name} says"
    return f"{how}{_counted_on(training, asked, rule)}"


def kept_table(plan: PruningPlan) -> list[str]:
    """The plan: each layer's experts with the weights that took the router's place."""
    lines = ["| layer | experts kept | experts (weight) |", "|---|---|---|"]
    for layer, of in plan.layers:
        each = ", ".join(f"{e} ({w:.2f})" for e, w in zip(of.experts, of.weights, strict=True))
        lines.append(f"| {layer} | {len(of.experts)} | {each} |")
    return lines


def _counted_on(training: Mapping[str, Any], asked: Mapping[str, Any], rule: str) -> str:
    """By which data experts were picked and weighted, as the end of a sentence."""
    if chosen := training.get("chosen_on"):
        return f", measured on {chosen['data']} (n = {chosen['n']:,})"
    if "counted_on" in asked:  # of experts drawn at random, whose usage weights them
        return f", usage counted on {asked['counted_on']}" + (
            f" (n = {asked['counted_n']:,})" if "counted_n" in asked else ""
        )
    if rule not in ("usage", "random") or "pruned_from" not in training:
        return ""
    of = training.get("validation_data")
    return ", usage as the routed checkpoint has it" + (f" from {of}" if of else "")


def _pruning(training: Mapping[str, Any]) -> dict[str, Any]:
    """What `prune` was asked for, of what can be read; a checkpoint may come from anywhere, and older ones lack it."""
    found = training.get("pruning")
    if not isinstance(found, Mapping):
        return {}
    return {
        name: found[name]
        for name, kind in _PRUNING.items()
        if isinstance(found.get(name), kind) and not isinstance(found[name], bool)
    }


def scored(info: CheckpointInfo) -> list[Mapping[str, Any]]:
    """The rows of scores that say all that a table asks for; a checkpoint may come from anywhere."""
    needed = ("model", "data", "metric", "score", "interval_is", "n")
    return [row for row in info.scores if all(row.get(name) is not None for name in needed)]


def score_sections(loaded: Checkpoint) -> list[str]:
    """For each data set the verdict on the controls and the table of scores."""
    lines = []
    found = scored(loaded.info)
    for data in dict.fromkeys(row["data"] for row in found):
        rows = [dict(row) for row in found if row["data"] == data]
        lines += [f"### On {data} (n = {rows[0]['n']:,})", ""]
        if loaded.info.config.layers and all(row["kind"] == "teacher" for row in rows):
            # A verdict on the teacher alone would read as one on this model.
            lines += ["Only the dense teacher was scored on these data, not this model.", ""]
        else:
            lines += [_verdict(rows), "", *_floor(rows)]
        lines += [*_table(rows, loaded), ""]
    return lines


def _table(rows: list[dict[str, Any]], loaded: Checkpoint) -> list[str]:
    metric, dense = rows[0]["metric"], dense_cost(loaded.model, TOKENS)
    lines = [
        f"| model | {metric} | interval | of teacher | encoder parameters | model parameters | encoder FLOPs |",
        "|---|---|---|---|---|---|---|",
    ]
    # Rows of earlier versions have a share of a score of 0 or less too.
    nothing = any(row["kind"] == "teacher" and row["score"] <= 0 for row in rows)
    for row in rows:
        low, high = stored_interval(row)
        note = "" if row["interval_is"] == "95%" else f" ({row['interval_is']})"
        price = row_cost(row, loaded)
        shares = price.relative_to(dense) if price else {}
        kept = [
            f"{shares[k]:.1%}" if shares else "" for k in ("encoder_params", "model_params", "encoder_flops")
        ]
        label = f"control: {row['model']}" if row["kind"] == "control" else row["model"]
        share = 1.0 if row["kind"] == "teacher" else row.get("retained")  # older rows of teachers have none
        retained = "–" if nothing else "" if share is None else f"{share:.1%}"
        interval = f"{low:.4f} to {high:.4f}{note}" if low == low else "–"
        cells = [label, f"{row['score']:.4f}", interval, retained, *kept]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _floor(rows: list[dict[str, Any]]) -> list[str]:
    """What the best constant answer scores, and which models are not above it; nothing where it is not known."""
    known = score_frame(rows)["constant"].dropna()
    if known.empty:
        return []
    floor = known.iloc[0]
    below = [f"“{row['model']}”" for row in rows if row["score"] <= floor]
    names = ", ".join(below) or "no model"
    if len(below) > 1:
        names = "every model" if len(below) == len(rows) else f"{len(below)} of {len(rows)} models: {names}"
    return [f"The best constant answer has {floor:.4f}; not above that: {names}.", ""]


def _verdict(rows: list[dict[str, Any]]) -> str:
    """Which controls tie with or beat the SHRP models that they are controls of, in words."""
    frame = score_frame(rows)
    found = verdicts(frame, lambda score, _metric: f"{score:.4f}")
    close = [f"- {verdict.text}" for verdict in found if verdict.outcome != "trails"]
    return "\n".join([summary(found, frame), *([""] if close else []), *close])
