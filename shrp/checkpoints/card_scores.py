"""A model card's scores: for each data set a verdict on the controls, and a table with what each model costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import CheckpointInfo
from shrp.checkpoints.score_costs import row_cost
from shrp.evaluation.costs import TOKENS, dense_cost
from shrp.evaluation.statistics import stored_interval
from shrp.evaluation.verdicts import score_frame, summary, verdicts


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
