"""A checkpoint's model card: what it is, how it was made, what it scores beside its controls, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shrp.checkpoint import Checkpoint, read_history
from shrp.checkpoint_info import PLAN_FILE, CheckpointInfo, usage_in
from shrp.errors import ShrpError
from shrp.evenness import effective_experts
from shrp.intervals import stored_interval
from shrp.measure import TOKENS, cost, dense_cost, plan_cost
from shrp.phrases import counted
from shrp.plan import make_plan
from shrp.training_config import RECIPES, TrainConfig
from shrp.usage import COLLAPSE_EXPERTS
from shrp.verdicts import HOW_COMPARED, score_frame, summary, verdicts

CARD = "README.md"
DROPPED = "layers dropped"
"""How the names of controls begin that have the checkpoint's converted layers left out."""


def card(name: str, loaded: Checkpoint, licence: str = "") -> str:
    """The card as Markdown; every figure in it comes from the checkpoint itself.

    Args:
        licence: of the base's weights, in words.
    """
    info = loaded.info
    lines = [f"# {name}", "", description(info), "", "## How it was made", "", made(loaded), ""]
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
        f'    checkpoint = shrp.load("{name}")    # the folder; unpickles nothing and runs no code of it',
        '    inputs = checkpoint.tokenizer([...], return_tensors="pt", padding=True, truncation=True)',
        "    logits = checkpoint.model(**inputs).logits",
        "",
    ]
    if licence:
        lines += ["## Licence", "", f"Weights derive from {info.base_model}: {licence}", ""]
    return "\n".join(lines)


def description(info: CheckpointInfo) -> str:
    """Task, base, layers and routing in a sentence or two."""
    start = f"Task {info.task.name}; base: {info.base_model}"
    if not info.config.layers:
        return f"{start}; dense: no layer is converted."
    if info.config.control != "none":
        what = {"dropped": "layers dropped", "uniform": "expert layers without routers"}[info.config.control]
        return f"{start}; a control of SHRP: {what}, {', '.join(map(str, info.config.layers))}."
    state = "pruned to a static model" if info.plan else "routed"
    return (
        f"{start}; {state}; converted layers: "
        f"{', '.join(map(str, info.config.layers))}; {info.config.routing} routing, Top-{info.config.top_k}."
    )


def made(loaded: Checkpoint) -> str:
    """How a checkpoint was made: on texts, if so, then on the task, and with which settings."""
    training = loaded.info.training
    texts = "" if converted(training) else texts_in(read_history(loaded.path))  # the history alone may tell
    texts = f"{texts} Then:" if texts else ""
    return " ".join(filter(None, (texts, trained(training), settings(training.get("config", {})))))


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
    try:
        return TrainConfig.from_dict(dict(config))
    except (ShrpError, KeyError, TypeError, ValueError, AttributeError):
        return None


def trained(training: Mapping[str, Any]) -> str:
    """On what and how a checkpoint was trained."""
    examples, config = training.get("train_examples"), training.get("config", {})
    before = converted(training)
    if examples is None:
        return before or "Nothing was stored about its training."
    distilled = [
        text
        for key, text in (("distill_logits", "logits"), ("distill_hidden", "hidden states"))
        if config.get(key)
    ]
    teacher = f" Distilled from the dense teacher's {' and '.join(distilled)}." if distilled else ""
    size = f"{config['epoch_size']:,} an epoch at most, " if config.get("epoch_size") else ""
    precision = f", {training['precision']}" if training.get("precision") else ""
    epochs = f"{counted(training['epochs'], 'epoch')}, " if "epochs" in training else ""
    then = f"{before} Then: " if before else ""
    return (
        f"{then}{_recipe(training)}Trained on {training.get('train_data')} ({examples:,} examples, {size}"
        f"{epochs}seed {config.get('seed')}{precision}), "
        f"validated on {training.get('validation_data')}; one seed, so differences within the intervals mean "
        f"nothing.{teacher}"
    )


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


def _of(sources: Sequence[str] | None, said: Sequence[str] | None) -> str:
    """Where texts come from, in brackets; nothing where that is not known or was said before."""
    return f" (of {', '.join(sources)})" if sources and sources != said else ""


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


def _usage_of(info: CheckpointInfo) -> str | None:
    """The task whose routed model's usage chose the experts before they learned on from texts, if one did."""
    return info.training.get("converted", info.training).get("usage_of")


def limits(info: CheckpointInfo) -> list[str]:
    """What a reader must not conclude."""
    found = [
        *([_how_chosen(info)] if info.config.layers and info.config.control == "none" else []),
        "Shares of parameters and FLOPs can be compared with other encoders of its geometry; scores can't be compared "
        "with those of another base.",
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
    if (task := _usage_of(info)) and task != info.task.name:
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


def scored(info: CheckpointInfo) -> list[Mapping[str, Any]]:
    """The rows of scores that say all that a table asks for; a checkpoint may come from anywhere."""
    needed = ("model", "data", "metric", "score", "interval_is", "n")
    return [row for row in info.scores if all(row.get(name) is not None for name in needed)]


def score_sections(loaded: Checkpoint) -> list[str]:
    """For each data set the verdict on the controls and the table of scores."""
    costs = _costs(loaded)
    lines = []
    found = scored(loaded.info)
    for data in dict.fromkeys(row["data"] for row in found):
        rows = [dict(row) for row in found if row["data"] == data]
        heading = f"### On {data} (n = {rows[0]['n']:,})"
        lines += [heading, "", _verdict(rows), "", *_floor(rows), *_table(rows, costs), ""]
    return lines


def _costs(loaded: Checkpoint) -> dict[Any, dict[str, float]]:
    """Shares kept, by experts a layer (None: the routed model), and with the converted layers `DROPPED`; of a static
    checkpoint only its own.
    """
    info, model = loaded.info, loaded.model
    dense = dense_cost(model, TOKENS)
    if info.plan is not None:
        own = {row.get("per_layer") for row in info.scores if row.get("budget") == info.plan.budget}
        return dict.fromkeys(own, cost(model, TOKENS).relative_to(dense))
    if not info.usage:
        return {}
    shares: dict[Any, dict[str, float]] = {None: cost(model, TOKENS).relative_to(dense)}
    shares[DROPPED] = dense_cost(model, TOKENS, dropped=len(info.config.layers)).relative_to(dense)
    for m in {row.get("per_layer") for row in info.scores} - {None}:
        shares[m] = plan_cost(model, make_plan(usage_in(info), per_layer=m), TOKENS).relative_to(dense)
    return shares


def _table(rows: list[dict[str, Any]], costs: dict[Any, dict[str, float]]) -> list[str]:
    metric = rows[0]["metric"]
    lines = [
        f"| model | {metric} | interval | of teacher | encoder parameters | model parameters | encoder FLOPs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = stored_interval(row)
        note = "" if row["interval_is"] == "95%" else f" ({row['interval_is']})"
        share = costs.get(_sized_as(row))
        kept = [
            f"{share[k]:.1%}" if share else "" for k in ("encoder_params", "model_params", "encoder_flops")
        ]
        label = f"control: {row['model']}" if row["kind"] == "control" else row["model"]
        retained = f"{row['retained']:.1%}" if "retained" in row else ""
        interval = f"{low:.4f} to {high:.4f}{note}" if low == low else "–"
        cells = [label, f"{row['score']:.4f}", interval, retained, *kept]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _sized_as(row: Mapping[str, Any]) -> Any:
    """Which of `_costs` a row's model has; of the teacher, and of what else has none, a key that is not there."""
    if row["model"].startswith(DROPPED):
        return DROPPED
    return "" if row["kind"] == "teacher" or "epochs" in row else row.get("per_layer")


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
