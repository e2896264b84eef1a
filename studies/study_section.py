"""The sections of docs/results.md on GLUE, size and the ablation, from what their commands wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from shrp.model.config import ShrpConfig
from shrp.phrases import (
    by_chance,
    ends_in_points,
    in_points,
    in_words,
    listed,
    metric_name,
    signed,
    with_ends,
)
from shrp.studies import ablations, selections, studies
from shrp.studies.findings import ABOVE_CONSTANT, HOW_FOUND, above_constant, findings
from shrp.studies.leads import HOW_APART, HOW_OPEN, MEAN, lead_frame, leads_measured
from shrp.studies.published import PUBLISHED
from shrp.training.config import TrainConfig
from shrp.training.general import RECOVERY_RATES
from studies.depths import DEPTHS
from studies.markdown import table

INTRODUCTION = (
    "Cells: share of the dense teacher's score that is left, in percent, and in brackets its 95% interval: of one "
    "seed over validation inputs, which does not say what another training would give; of several, whose lowest and "
    "highest follow, over inputs and trainings (`shrp.evaluation.intervals`). Of random experts without recovery it is "
    "the range of draws; where they are trained on, each seed has one draw, the same experts on every task, so a "
    "single seed says nothing of other draws. The teacher's own score is taken as exact. Parameters and FLOPs are "
    "shares of the dense encoder's layers, without embeddings, those of the model with embeddings and head; FLOPs at "
    "128 tokens. "
    "All seeds of a task, recipe and depth start from one teacher, and those of `retain` from one conversion on texts. "
    "The mean stands only where every task of the table is measured. “One class”: the model gives all inputs the same "
    "answer. Experts that no input was routed to are kept with weight 0, so beyond the number of those used, larger "
    "static models repeat the score of a smaller one."
)

OTHER_START = (
    " Where layers were dropped, those left begin as they were after the texts, where beside SHRP's they are the "
    "task's teacher's: what they keep from that start stands under “Other rates, and other starts”."
)

_SIZES = {
    "encoder_params": "encoder parameters",
    "model_params": "model parameters",
    "encoder_flops": "encoder FLOPs",
    "model_flops": "model FLOPs",
}


def glue_section(rows: Sequence[Mapping[str, Any]]) -> str:
    """What is found in a sentence each, then a table for each recipe and depth; nothing where there are no rows."""
    frame = studies.glue_frame(list(rows))
    if frame.empty:
        return ""
    lines = ["## GLUE, with controls", "", f"Written by `python -m studies.glue`. {INTRODUCTION}", ""]
    lines += [f"- {sentence}" for sentence in findings(frame)]
    lines += ["", f"{HOW_FOUND} {_teachers(frame)}", ""]
    lines += [f"{ABOVE_CONSTANT}", "", *(f"- {sentence}" for sentence in above_constant(frame)), ""]
    for (recipe, depth), part in frame.groupby(["recipe", "depth"], sort=True):
        lines += [f"### {recipe}, {in_words(depth)}", ""]
        lines += [*_how(recipe, depth, part), *_table(part), "", *_beside(part)]
    return "\n".join([*lines, *_size(frame)])


def _teachers(frame: pd.DataFrame) -> str:
    found = []
    for task, rows in frame.groupby("task", sort=False):
        teachers, of = _by_teacher(rows), f"{task} {metric_name(rows['metric'].iloc[0])}"
        n = f"n = {rows['n'].iloc[0]:,}"
        if len(set(teachers.values())) == 1:
            score, floor = next(iter(teachers.values()))
            found.append(f"{of} {score} ({n}{floor})")
        else:
            each = listed(f"{score} of {who}{_apart(floor)}" for who, (score, floor) in teachers.items())
            found.append(f"{of} {each} ({n})")
    return f"Teachers: {'; '.join(found)}."


def _apart(clause: str) -> str:
    """A clause in brackets of its own; empty for none."""
    return clause and f" ({clause.removeprefix(', ')})"


def _by_teacher(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Recipe, with the depth where its depths have teachers of their own -> the teacher's score, and a clause on what
    part of it the best constant answer has.
    """
    found: dict[str, tuple[str, str]] = {}
    for recipe, of in rows.groupby("recipe", sort=False):
        known = {
            depth: (f"{part['teacher'].iloc[0]:.3f}", studies.floor_text(studies.floors(part).iloc[0]))
            for depth, part in of.groupby("depth", sort=False)
        }
        if len(set(known.values())) == 1:
            found[str(recipe)] = next(iter(known.values()))
        else:
            found |= {f"{recipe} at {in_words(depth)}": one for depth, one in known.items()}
    return found


def _how(recipe: str, depth: str, frame: pd.DataFrame) -> list[str]:
    """What the settings of a table's rows, which `frame` holds, are beside the recipe's."""
    known = [one for one in DEPTHS if one.name == depth]
    if recipe != "retain" or not known:
        return []
    (one,) = known
    rates = TrainConfig.named("retain", shrp=ShrpConfig(()), **one.rates)
    text = (
        f"On the task: learning rates {rates.learning_rate:g} and, for new weights, {rates.new_learning_rate:g}; "
        f"dense layers {'frozen (but beside dropped ones)' if one.freeze_dense else 'learning'}, embeddings frozen."
        + OTHER_START
        * (not one.recover_on_texts)
    )
    if one.recover_on_texts:
        further = RECOVERY_RATES
        text += (
            " What recovers is the encoder that was converted on the texts, pruned to the experts that the task's "
            "routed model uses most, or to random ones, and trained on there, each pruned layer to say what the "
            f"dense one says, at {further['learning_rate']:g} and {further['new_learning_rate']:g} before it sees the "
            f"task, for about {one.recovery_examples:,} examples or {one.recovery_tokens / 1e6:g} million tokens, "
            "whichever is more, in whole epochs."
        )
        if (frame["model"].eq("uniform") & frame["texts"].gt(0)).any():
            text += (
                " Without a router, unpruned, the dense layer does not learn on the texts: it begins as the task's "
                "teacher has it."
            )
    if with_copies := list(frame.loc[frame["copies"] > 0, "task"].unique()):
        text += (
            f" In {', '.join(with_copies)} these examples, and those of the controls, are the task's and "
            f"{int(frame['copies'].max())} changed copies of each, and what is learned of them is what the teacher "
            "says, without labels (`python -m shrp augment`)."
        )
    return [text, ""]


def _beside(frame: pd.DataFrame) -> list[str]:
    """Under a table: what its controls are, SHRP's leads over trained ones, and those that were not measured."""
    about = studies.about_controls(frame)
    lines = [about, ""] if about else []
    leads = lead_frame(frame)
    if len(leads):
        lines += [*_leads(leads), ""]
    missing = studies.not_measured(frame)
    return [*lines, f"Controls not measured: {missing}.", ""] if missing else lines


def _leads(leads: pd.DataFrame) -> list[str]:
    """The table of `lead_frame`."""
    tasks = [task for task in leads["task"].unique() if task != MEAN]
    tasks += [MEAN] * bool(leads["task"].eq(MEAN).any())
    cells = {(row.name, row.task): _lead(row) for row in leads.itertuples(index=False)}
    rows = [[name, *(cells.get((name, task), "") for task in tasks)] for name in leads["name"].unique()]
    apart = f" *In italics* what {HOW_APART}" * (not leads["paired"].all())
    return [
        "By how many points of the teacher's score SHRP's recovered static model leads a trained control, with its 95% "
        f"interval, paired on the same inputs. {HOW_OPEN}{apart}{by_chance(leads_measured(leads))}",
        "",
        *table(["lead over", *tasks], rows),
    ]


def _lead(row: Any) -> str:
    """A lead in points; in italics where it is not paired."""
    text = in_points(row.lead, row.low, row.high)
    text = text if row.low == row.low else f"{text} (no interval)"
    text += f"; seeds: {row.seeds}" * (row.seeds not in ("", "1"))
    return text if row.paired else f"*{text}*"


def _size(frame: pd.DataFrame) -> list[str]:
    """Mean retained share against what is left of the encoder, beside published figures."""
    head = ["model", "recipe", *_SIZES.values(), "retained", "mean over"]
    mean = studies.average(frame).sort_values(["encoder_params", "retained"], ascending=[True, False])
    rows = [
        [
            f"{row.name}, {in_words(row.depth)}",
            *(
                row.recipe,
                *(_share(getattr(row, size)) for size in _SIZES),
                with_ends(row.retained, row.low, row.high),
                row.tasks,
            ),
        ]
        for row in mean.itertuples(index=False)
    ]
    rows += [
        [
            f"*{p.name}*",
            "*as reported*",
            *(_share(getattr(p, size, None)) for size in _SIZES),
            f"{p.retained:.1%}",
            f"{p.denominator} ({p.source})",
        ]
        for p in PUBLISHED
    ]
    return [
        "### Score against size",
        "",
        "Means over the tasks that each model was measured on, by size, with 95% intervals (none for draws of random "
        "experts, and where all answers are alike); below them, as reported by others of BERT-base, each with its own "
        "tasks and denominators, so not to be compared point by point.",
        "",
        *table(head, rows),
        "",
    ]


def _share(share: float | None) -> str:
    return "" if share is None or share != share else f"{share:.1%}"


def size_section(rows: Sequence[Mapping[str, Any]]) -> str:
    """The size check: a table for each encoder; nothing where there are no rows."""
    lines = []
    for name, frame in studies.size_frames(list(rows)).items():
        lines += [
            "",
            f"## {name}",
            "",
            f"Written by `python -m studies.size_check`. {_teachers(frame)}",
            "",
        ]
        lines += [*(f"- {sentence}" for sentence in findings(frame)), "", HOW_FOUND]
        for (recipe, depth), part in frame.groupby(["recipe", "depth"], sort=True):
            lines += ["", f"### {recipe}, {in_words(depth)}", "", *_table(part), ""]
            lines += _beside(part)[:-1]
    return "\n".join(lines[1:])


def ablation_section(rows: Sequence[Mapping[str, Any]]) -> str:
    """What each part of the recipes is worth; nothing where there are no rows."""
    frame = ablations.frame_of(list(rows))
    if frame.empty:
        return ""
    lines = [
        "## What each part of the recipes is worth",
        "",
        f"Written by `python -m studies.ablation`: {ablations.about(list(rows))}. Cells: share of the dense "
        "teacher's score, and in brackets the lowest and highest seed, or of one seed what its 95% interval allows. "
        "“One class”: the model gives all inputs the same answer. Points ahead of `retain` are paired on the same "
        "inputs; empty where that was not kept.",
        "",
        *(f"- {sentence}" for sentence in ablations.findings(frame)),
        "",
    ]
    head = ["variant", "routed", "1 a layer", "1 a layer, recovered", "recovered, points ahead of retain"]
    for task, part in frame.groupby("task", sort=False):
        first = part.iloc[0]
        lines += [
            f"{task}, {metric_name(first['metric'])} (teacher {first['teacher']:.3f}, n = {first['n']:,}):",
            "",
        ]
        cells = [
            [row["variant"], *(_ends(row, model) for model in ("routed", "static", "recovered")), _ahead(row)]
            for _, row in part.iterrows()
        ]
        lines += [*table(head, cells), ""]
    return "\n".join(lines)


def selection_section(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which experts to keep; nothing where there are no rows."""
    frame = selections.frame_of(rows)
    if frame.empty:
        return ""
    lines = [
        "## Which experts to keep",
        "",
        "Written by `python -m studies.selection`: routed checkpoints, pruned without any training on. Usage and "
        "gate × norm are counted on the validation data that scores them, as in the paper, and experts are knocked out "
        "(ablation) on up to 512 of its inputs; random experts weigh by usage, unless said otherwise; gates are "
        "fitted on at most 512 texts of the training split, whose labels only mix the classes. Cells: share of the "
        "routed model's score, and in brackets what its 95% interval allows (for random experts the range of three "
        "draws). “Shares matched”: with the output bias shifted so that each class is given as often as by the routed "
        "model on 512 texts of the training split, drawn alike (`shrp.evaluation.answer_shares`). ROC: area under the "
        "curve of the models by usage, which no threshold touches, where it was measured. One training each.",
        "",
        *(f"- {sentence}" for sentence in selections.findings(frame)),
        "",
    ]
    names = [name for name in selections.NAMES.values() if name in set(frame["selection"])]
    cells = []
    for (checkpoint, size, matched), part in frame.groupby(
        ["checkpoint", "per_layer", "matched"], sort=False
    ):
        found, first = {row.selection: row for row in part.itertuples()}, part.iloc[0]
        line = [checkpoint, f"{metric_name(first['metric'])} {first['routed']:.3f}", f"{first['n']:,}"]
        line += [f"{size}{', shares matched' * matched}", f"{first['encoder_params']:.1%}"]
        area = found["usage"].ranking if "usage" in found else float("nan")
        line.append(f"{area:.3f}" if area == area else "")
        line += [
            _percent(found[name].retained, found[name].low, found[name].high) if name in found else ""
            for name in names
        ]
        cells.append(line)
    head = ["checkpoint", "routed", "n", "kept a layer", "encoder parameters", "ROC", *names]
    return "\n".join([*lines, *table(head, cells), ""])


def _ends(row: Mapping[str, Any], model: str) -> str:
    return _percent(*(row[f"{model} {end}"] for end in ("retained", "low", "high")))


def _ahead(row: Mapping[str, Any]) -> str:
    """By how many points of the teacher's score a variant is ahead of `retain` on the same inputs, if that is known."""
    if row["change"] != row["change"]:
        return ""
    return f"{signed(100 * row['change'])} ({ends_in_points(row['change low'], row['change high'])})"


def _one_class(value: float, low: float, high: float) -> str:
    """What stands for a score of 0 without an interval, as no resample moves it, or in all seeds or draws: of Matthews
    that is no certainty, the model gives one answer to all inputs. Empty for others.
    """
    return "0.0 (one class)" if value == 0 and (low != low or low == high == 0) else ""


def _percent(value: float, low: float, high: float, more: str = "") -> str:
    """A share in percent, in brackets its interval and what else there is to say."""
    ends = f"{100 * low:.1f} to {100 * high:.1f}" if low == low else "no interval"
    return _one_class(value, low, high) or f"{100 * value:.1f} ({ends}{more})"


def _table(frame: pd.DataFrame) -> list[str]:
    tasks = list(dict.fromkeys(frame["task"]))
    head = ["model", *_SIZES.values(), *tasks, "mean"]
    lines = []
    for name, group in frame.groupby("name", sort=False):
        found = {row.task: row for row in group.itertuples()}
        first = group.iloc[0]
        cells = [name, *(_share(first[size]) for size in _SIZES)]
        cells += [_cell(found[task]) if task in found else "" for task in tasks]
        whole = len(found) == len(tasks)
        cells.append(f"{100 * group['retained'].mean():.1f}" if whole else "")
        lines.append(cells)
    return table(head, lines)


def _cell(row: Any) -> str:
    seeds = f"; {row.seeds} seeds, {100 * row.lowest:.1f} to {100 * row.highest:.1f}" if row.seeds > 1 else ""
    return _percent(row.retained, row.low, row.high, seeds)
