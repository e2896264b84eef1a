"""A model card's scores: for each data set a verdict on the controls, and a table with what each model costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shrp.checkpoint import Checkpoint
from shrp.checkpoint_info import CheckpointInfo, usage_in
from shrp.intervals import stored_interval
from shrp.measure import TOKENS, cost, dense_cost, plan_cost
from shrp.plan import make_plan
from shrp.verdicts import score_frame, summary, verdicts

DROPPED = "layers dropped"
"""How the names of controls begin that have the checkpoint's converted layers left out."""


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
        lines += [f"### On {data} (n = {rows[0]['n']:,})", ""]
        if loaded.info.config.layers and all(row["kind"] == "teacher" for row in rows):
            # A verdict on the teacher alone would read as one on this model.
            lines += ["Only the dense teacher was scored on these data, not this model.", ""]
        else:
            lines += [_verdict(rows), "", *_floor(rows)]
        lines += [*_table(rows, costs), ""]
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
    # Rows of earlier versions have a share of a score of 0 or less too.
    nothing = any(row["kind"] == "teacher" and row["score"] <= 0 for row in rows)
    for row in rows:
        low, high = stored_interval(row)
        note = "" if row["interval_is"] == "95%" else f" ({row['interval_is']})"
        share = costs.get(_sized_as(row))
        kept = [
            f"{share[k]:.1%}" if share else "" for k in ("encoder_params", "model_params", "encoder_flops")
        ]
        label = f"control: {row['model']}" if row["kind"] == "control" else row["model"]
        retained = "–" if nothing else f"{row['retained']:.1%}" if "retained" in row else ""
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
