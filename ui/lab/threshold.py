"""What a pruned model loses by its threshold alone, and its score with the routed model's answer shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shrp.data.text_data import TextData
from shrp.evaluation.calibration import answer_shares, matching_shift, shifted
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.metrics import ranking
from ui import paired_results
from ui.store import results
from ui.text import escape, interval_text, metric_name, percent, points, points_interval, score_text


@dataclass(frozen=True, eq=False)
class Matched:
    """A pruned model with its output bias shifted to give each class as often as the routed one on the same inputs."""

    shift: np.ndarray
    """`(C,)`, in the order of the task's labels."""
    evaluation: Evaluation


def matched(key: str, pruned: Evaluation, routed: Evaluation, data: TextData) -> Matched | None:
    """None of a regression, whose scores no shift changes, and while not all inputs are evaluated.

    Args:
        key: of the pruned model (`ui.lab.sides.model_key`); what was found for it is kept, intervals take a moment.
    """
    if data.task.is_regression or not (pruned.complete and routed.complete):
        return None

    kept, place = results("matched shares", 512), (key, data.fingerprint, data.name)
    if (found := kept.get(place)) is None:
        shift = matching_shift(pruned.logits, routed.logits)
        kept.put(place, found := Matched(shift, shifted(pruned, data, shift)))
    return found


def between(one: Evaluation, other: Evaluation, data: TextData) -> str:
    """How much of two models' difference is where they draw the line between classes, as Markdown; empty where their
    answers are as frequent to within a point, or there are no labelled classes.
    """
    task = data.task
    if task.is_regression or data.labels is None or not (one.complete and other.complete):
        return ""
    a, b = answer_shares(one.logits), answer_shares(other.logits)
    if np.abs(a - b).max() < 0.01:
        return ""
    most = int(np.abs(a - b).argmax()) if task.num_labels > 2 else 1
    moved = shifted(other, data, matching_shift(other.logits, one.logits))
    difference, bounds = paired_results.difference(moved, one)
    label, metric = escape(task.label_names[most]), one.metric
    said = (
        f"**Threshold**: A predicts *{label}* for {percent(a[most])} of the inputs, B for {percent(b[most])}. With "
        "answer shares matched (B's output bias shifted, without labels, until each class is as frequent as in A), B "
        f"has {score_text(moved.score, metric)}: {points(difference, metric)} against A (95% interval "
        f"{points_interval(bounds, metric)}), where it has {points(other.score - one.score, metric)} as it is."
    )
    if task.num_labels == 2:
        areas = [score_text(ranking(e.labels, e.logits), "auc") for e in (one, other)]
        said += f" ROC AUC, free of any threshold: A {areas[0]}, B {areas[1]}."
    return said


def is_most(found: Matched, pruned: Evaluation, routed: Evaluation) -> bool:
    """Whether at least half of what pruning loses, and more than a point, comes back once the threshold is mended, by
    more than chance.
    """
    lost, mended = routed.score - pruned.score, found.evaluation.score - pruned.score
    if not (lost > 0 and mended > 0.01 and mended >= lost / 2):
        return False
    return paired_results.difference(found.evaluation, pruned)[1][0] > 0


def line(found: Matched, pruned: Evaluation, routed: Evaluation, data: TextData) -> str:
    """What the threshold costs, as Markdown: how often classes are given, the score with equal shares, the ranking."""
    task, one = data.task, found.evaluation
    ours, theirs = answer_shares(pruned.logits), answer_shares(routed.logits)
    most = int(np.abs(ours - theirs).argmax()) if task.num_labels > 2 else 1
    said = (
        f"**Threshold**: predicts *{escape(task.label_names[most])}* for {percent(ours[most])} of the inputs, the "
        f"routed model for {percent(theirs[most])}."
    )
    if data.labels is None:
        return said
    bounds = interval_text(one.interval, one.metric)
    said += (
        " With answer shares matched (output bias shifted, without labels, until each class is as frequent as in the "
        f"routed model): {metric_name(one.metric)} {score_text(one.score, one.metric)}"
        f"{f' (95% interval {bounds})' * bool(bounds)}."
    )
    if task.num_labels == 2:
        own, other = (ranking(e.labels, e.logits) for e in (pruned, routed))
        said += (
            f" ROC AUC, free of any threshold: {score_text(own, 'auc')}, routed {score_text(other, 'auc')}."
        )
    return said
