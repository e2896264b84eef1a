"""The part of docs/results.md on what routes are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shrp.phrases import metric_name, signed
from shrp.studies import routes
from studies.markdown import table


def routes_section(rows: Sequence[Mapping[str, Any]]) -> str:
    """What routes go by and are worth; nothing where there are no rows."""
    worth, told = routes.frames_of(rows)
    if worth.empty:
        return ""
    groups = list(dict.fromkeys(told["by"])) if len(told) else []
    lines = [
        "## What routed models lose without their routes",
        "",
        "Written by `python -m studies.routes`: routed checkpoints on GLUE's validation data, without any training "
        "on, one training each. A layer's number: every input takes the route of another one there, drawn at random "
        "once, those above routing as they then would; all (wrong routes): its whole route; alike (routes of the same "
        "answer): the same, only among inputs that the model answers alike, of a number in the same quartile; mixture "
        "(no routes): all inputs get all experts, weighted by usage (`shrp.analysis.routes`). All and alike are "
        "means of several draws, with their intervals over inputs, paired as all are here (`shrp.evaluation.paired`). "
        "Nothing is trained: "
        "what a model keeps that learnt without a router is the no-router control above.",
        "",
        "Shares matched: with outputs shifted so that each class is given as often as by the routed model, without "
        "labels, since what moves may be the threshold alone; in the first table classifiers are told so. Explained: "
        "the part of the experts' entropy that class, the model's own answer, or length explains beyond chance, "
        "numbers in quartiles (`shrp.analysis.specialisation`). Of STS-B, class and answer are quartiles of a number; "
        "not distilled is the paper's recipe. Names are of tasks and depths; elsewhere on this page the same names may "
        "be other trainings.",
        "",
        *(f"- {sentence}" for sentence in routes.findings(worth)),
        "",
    ]
    whole = routes.summary(worth, told)
    lines += [*table([*whole], whole.to_numpy().tolist()), ""] if len(whole) else []
    head = [
        "checkpoint",
        "layer",
        "choices moved",
        "score",
        "change",
        "shares matched",
        "answers that change",
    ]
    cells = []
    for row in worth.itertuples():
        ends = f" ({signed(row.low, 4)} to {signed(row.high, 4)})" if row.low == row.low else " (no interval)"
        flipped = "" if row.flipped != row.flipped else f"{_answers(row)} of {row.n:,}"
        line = [
            row.checkpoint,
            str(row.layer),
            "" if row.moved != row.moved else f"{row.moved:.0%}",
            f"{metric_name(row.metric)} {row.score:.4f}",
            signed(row.change, 4) + ends,
            _matched(row),
            flipped,
        ]
        for by in groups:
            here = told[
                (told["checkpoint"] == row.checkpoint) & (told["layer"] == row.layer) & (told["by"] == by)
            ]
            known = len(here) and here["explained"].notna().iloc[0]
            line.append(f"{here['explained'].iloc[0]:.1%}" if known else "")
        cells.append(line)
    return "\n".join([*lines, *table([*head, *(f"explained by {by}" for by in groups)], cells), ""])


def _answers(row: Any) -> str:
    """How many answers change: of several draws the mean, the least and the most."""
    if row.draws == 1:
        return f"{int(row.flipped):,}"
    return f"{row.flipped:,.1f} ({int(row.flipped_min):,} to {int(row.flipped_max):,})"


def _matched(row: Any) -> str:
    """The score with answer shares matched, its change and the interval; empty of a regression."""
    if row.matched != row.matched:
        return ""
    return (
        f"{row.matched:.4f} ({routes.in_thousandths(row.matched_change, row.matched_low, row.matched_high)})"
    )
