"""A checkpoint's model card: what it is, how it was made, what it scores beside its controls, what it is not for."""

from __future__ import annotations

from shrp.analysis.usage import COLLAPSE_EXPERTS, effective_experts
from shrp.checkpoints.card_pruning import kept_table, pruned, trimmed
from shrp.checkpoints.card_scores import score_sections, scored
from shrp.checkpoints.card_training import chosen_on_texts, converted, settings, texts_in, trained, usage_of
from shrp.checkpoints.checkpoint import Checkpoint, read_history
from shrp.checkpoints.info import PLAN_FILE, CheckpointInfo, usage_in
from shrp.evaluation.costs import TOKENS
from shrp.evaluation.verdicts import HOW_COMPARED

CARD = "README.md"


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
    ]
    if licence:
        lines += [_LICENCE, "", f"{_DERIVED} {info.base_model}: {licence}", ""]
    return "\n".join(lines)


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
