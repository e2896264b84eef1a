"""Write the tables of README.md and docs from docs/data: `python -m studies.results`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the text around it is written by hand. The Results page
of the app reads docs/data/summary.json and leads.json, which are written too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import combinations, product
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from shrp.cli.output import stderr
from shrp.errors import DataError
from shrp.files import write_text
from shrp.phrases import metric_name
from studies.rows import DATA, as_json, read_rows, run
from studies.summary import NAMES, SIZES, TASKS, Mean, describe, leads, over_tasks, over_trainings, summary

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "glue.md")
LABELS = {"cola": "CoLA", "mrpc": "MRPC", "rte": "RTE", "stsb": "STS-B", "sst2": "SST-2", "qnli": "QNLI", "qqp": "QQP"}
LONGER = ", trained for longer"
"""What a depth's name ends in for the models of docs/data/longer.json."""
COLUMNS = [(recipe, depth) for recipe in ("retain", "paper") for depth in SIZES]

Row = Mapping[str, Any]
Cells = Mapping[Any, str]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; numbers below 0 have a minus sign, and those that round to 0 have no sign."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    unsigned = re.sub(r"(?<=[ (])[-+](?=0\.0+\b)", "", "\n".join(lines))
    return re.sub(r"(?<=[ (])-(?=\d)", "−", unsigned)


def crossed(first: str, columns: Mapping[Any, str], cells: Mapping[str, Cells]) -> str:
    """A table of named rows; `columns` has each column's key and its heading."""
    rows = ([name, *(found.get(key, "") for key in columns)] for name, found in cells.items())
    return table([first, *columns.values()], rows)


def by_recipe(first: str, cells: Mapping[str, Cells]) -> str:
    """A table with a column for each recipe and depth."""
    return crossed(first, {key: f"{key[0]}, {key[1].replace('of', ' of ')}" for key in COLUMNS}, cells)


def share(row: Row | None) -> str:
    """A share with its 95% interval, in percent."""
    if row is None:
        return ""
    ends = row.get("interval") and " ({:.1f}–{:.1f})".format(*(100 * end for end in row["interval"]))
    return f"{100 * row['share']:.1f}{ends or ''}"


def points(row: Row) -> str:
    """A difference with its 95% interval, in points."""
    low, high = row["interval"]
    return f"{100 * row['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _main_rows(rows: list[dict[str, Any]], recipe: str, depth: str) -> list[dict[str, Any]]:
    """The models of the main table."""
    return [row for row in rows if (row["recipe"], row["depth"]) == (recipe, depth) and row["compared"]]


@cache
def _of_glue(made: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The `summary` or the `leads` of the GLUE study, which several tables need."""
    return made(read_rows(DATA / "glue.json"))


def headline() -> str:
    """The README's table: `retain` and `paper`, fine-tuned after pruning, SHRP next to every control."""
    rows, plain = _of_glue(summary), "SHRP, not fine-tuned after pruning"
    found: dict[str, dict[tuple[str, str], str]] = {NAMES["shrp"]: {}, plain: {}}
    for column in COLUMNS:
        for row in _main_rows(rows, *column):
            if row["fine_tuned_after_pruning"]:
                found.setdefault(row["name"], {})[column] = share(row)
            elif row["model"] == "shrp" and not row["routed"]:
                found[plain][column] = share(row)
    return by_recipe("", found)


def glue(recipe: str, depth: str) -> str:
    """One part of the GLUE table: percent of the teacher's score by task."""
    rows = _main_rows(_of_glue(summary), recipe, depth)
    lines = []
    for row in rows:
        tasks = [f"{100 * row['by_task'][task]['share']:.1f}" for task in TASKS]
        tuned = "yes" if row["fine_tuned_after_pruning"] else "no"
        lines.append([describe(row), tuned, *tasks, share(row), f"{row['encoder_params_share']:.1%}"])
    return table(["model", "fine-tuned", *(LABELS[task] for task in TASKS), "mean", "encoder"], lines)


def against_controls() -> str:
    """SHRP's lead over each fine-tuned control."""
    cells: dict[str, dict[tuple[str, str], str]] = {}
    for row in _of_glue(leads):
        cells.setdefault(row["name"], {})[row["recipe"], row["depth"]] = points(row)
    return by_recipe("SHRP minus", cells)


def like_for_like() -> str:
    """Our figures without fine-tuning after pruning next to the paper's, and with it."""
    rows = _of_glue(summary)
    paper, selected = {row["name"]: row for row in read_rows(DATA / "published.json")}, _selected()

    def ours(depth: str, tuned: bool) -> list[str]:
        wanted = {"depth": depth, "model": "shrp", "routed": False}
        wanted |= {"experts_per_layer": SIZES[depth], "fine_tuned_after_pruning": tuned}
        known = {row["recipe"]: row for row in rows if wanted.items() <= row.items()}
        return [share(known.get(recipe)) for recipe in ("paper", "retain")]

    lines = []
    for depth in SIZES:
        words = f"{depth.replace('of', ' of ')} layers"
        theirs = f"{100 * paper[f'SHRP paper, {words}']['share']:.1f}"
        lines.append([f"{words}, no fine-tuning", theirs, *ours(depth, False)])
        lines.append([f"{words}, only gates fitted", "", "", selected[depth, "fitted"]["mean"]])
        for kind, how in (("usage", "no fine-tuning"), ("fitted", "only gates fitted")):
            if longer := selected.get((depth + LONGER, kind), {}).get("mean"):
                lines.append([f"{words}{LONGER}, {how}", "", "", longer])
        lines.append([f"{words}, fine-tuned after pruning", "", *ours(depth, True)])
    return table(["", "the paper (BERT-base)", "`paper` recipe", "`retain` recipe"], lines)


def ablation() -> str:
    """What each part of the recipe is worth."""
    cells: dict[str, dict[tuple[str, str], str]] = {}
    for row in read_rows(DATA / "ablation.json"):
        pruned = "fine-tuned" if row["fine_tuned_after_pruning"] else "pruned"
        stage = "routed" if row["model"] == "routed" else pruned
        score = f"{100 * row['score'] / row['teacher_score']:.1f}"
        cells.setdefault(row["variant"], {})[row["task"], stage] = score
    columns = product(("cola", "stsb"), ("routed", "pruned", "fine-tuned"))
    return crossed("recipe", {(task, stage): f"{LABELS[task]}, {stage}" for task, stage in columns}, cells)


def extensions() -> str:
    """The extensions on validation data: percent of the teacher's score by task, and the mean where all are known."""
    found: dict[tuple[str, ...], dict[str, list[tuple[float, list[float]]]]] = {}
    for row in read_rows(DATA / "extensions.json"):
        if row["scored_on"] == "validation":
            of = row["teacher_score"]
            about = row["depth"].replace("of", " of "), row["variant"], f"{row['texts']:,}"
            tasks = found.setdefault((*about, f"{row['encoder_params_share']:.1%}"), {})
            tasks.setdefault(row["task"], []).append((row["score"] / of, [end / of for end in row["interval"]]))
    lines = []
    for about, scores in found.items():
        means = {task: over_trainings(*zip(*several, strict=True)) for task, several in scores.items()}
        if len(means) == len(TASKS):
            means["mean"] = over_tasks([*means.values()])
        cells = {name: share({"share": mean.value, "interval": mean.interval}) for name, mean in means.items()}
        lines.append([*about, *(cells.get(name, "") for name in (*TASKS, "mean"))])
    return table(["layers", "model", "texts", "encoder", *(LABELS[task] for task in TASKS), "mean"], lines)


def routing() -> str:
    """What choosing experts adds at equal FLOPs; the least error first."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in sorted(read_rows(DATA / "routing.json"), key=lambda row: (row["task"], row["hidden_error"])):
        of, task = row["teacher_score"], LABELS[row["task"]]
        shares = {"share": row["score"] / of, "interval": [end / of for end in row["interval"]]}
        sizes = (f"{row[name]:.1%}" for name in ("encoder_flops_share", "encoder_params_share"))
        cells = {f"error, {task}": f"{row['hidden_error']:.3f}", task: share(shares)}
        found.setdefault((row["routing"], *sizes), {}).update(cells)
    columns = [f"{what}{LABELS[task]}" for task in ("cola", "stsb") for what in ("error, ", "")]
    lines = ([*about, *(cells.get(column, "") for column in columns)] for about, cells in found.items())
    return table(["in each layer", "FLOPs", "parameters", *columns], lines)


def by_depth(task: str) -> str:
    """Percent of the teacher's score by depth, of a task with a file of its own."""
    cells: dict[str, dict[str, str]] = {}
    for row in read_rows(DATA / f"{task}.json"):
        of, tuned = row["teacher_score"], ", fine-tuned" * row["fine_tuned_after_pruning"]
        shares = {"share": row["score"] / of, "interval": row["interval"] and [end / of for end in row["interval"]]}
        if row["routed"] or row["experts_per_layer"] in (None, SIZES[row["depth"]]):
            name = NAMES[row["model"]] + ", routed" * row["routed"] + tuned
            cells.setdefault(name, {})[row["depth"]] = f"{share(shares)} with {row['encoder_params_share']:.1%}"
    depths = [depth for depth in SIZES if any(depth in found for found in cells.values())]
    return crossed("model", {depth: f"{depth.replace('of', ' of ')} layers" for depth in depths}, cells)


def _selected() -> dict[tuple[str, str], dict[str, str]]:
    """Depth (and `LONGER`), and what experts are selected by or `routed` -> percent of the teacher's score by task, and mean."""
    found: dict[tuple[str, str], dict[str, Mean]] = {}
    for row in read_rows(DATA / "selection.json") + read_rows(DATA / "longer.json"):
        if row["per_layer"] == SIZES[row["depth"]] and row["teacher_score"]:
            of, depth = row["teacher_score"], row["depth"] + LONGER * ("more_on" in row)
            for kind, score, ends in (("routed", row["routed"], None), (row["selection"], row["score"], row["interval"])):
                kept = over_trainings([score / of], [ends and [end / of for end in ends]])
                found.setdefault((depth, kind), {})[row["task"]] = kept
    shown = {key: {task: f"{100 * kept.value:.1f}" for task, kept in one.items()} for key, one in found.items()}
    for key, one in found.items():
        if len(one) == len(TASKS):
            kept = over_tasks(list(one.values()))
            ends = None if key[1] in ("routed", "random") else kept.interval
            shown[key]["mean"] = share({"share": kept.value, "interval": ends})
    return shown


def selection() -> str:
    """Percent of the teacher's score by what experts are selected by."""
    found, cells = _selected(), {}
    for depth, kind in product((*SIZES, "11of12" + LONGER), ("routed", "usage", "fitted", "random")):
        if len(found.get((depth, kind), {})) > 1:
            cells[f"{depth.replace('of', ' of ')}, {kind}"] = found[depth, kind]
    return crossed("experts selected by", {task: LABELS[task] for task in TASKS} | {"mean": "mean"}, cells)


def routes() -> str:
    """Change of the score when examples exchange their routes."""
    cells: dict[str, dict[str, str]] = {}
    for row in read_rows(DATA / "routes.json"):
        if row["change_interval"]:
            change = {"difference": row["change"], "interval": row["change_interval"]}
            cells.setdefault(row["checkpoint"], {})[row["layer"]] = points(change)
    head = {"all": "all routes permuted", "same prediction": "permuted among equal predictions"}
    return crossed("checkpoint", head | {"mixture": "mixture of all experts"}, cells)


def topk() -> str:
    """Score and stability of the kept set by Top-k."""
    frame, lines = pd.DataFrame(read_rows(DATA / "topk.json")), []
    for (task, k), mine in frame.groupby(["task", "top_k"], sort=False):
        retained = mine.groupby("budget", dropna=False)["retained"].mean()
        scores = [f"{100 * retained[budget]:.1f}" for budget in (np.nan, 12, 24, 48)]
        kept = list(mine.loc[mine["budget"] == 12, "kept"])
        overlap = f"{_overlap(kept):.2f}" if len(kept) > 1 else ""
        lines.append([LABELS[task], str(k), str(mine["seed"].nunique()), *scores, overlap])
    head = ["task", "k", "seeds", "routed", "12 experts", "24", "48", "overlap of the 12 kept"]
    return table(head, sorted(lines, key=lambda line: list(LABELS.values()).index(line[0])))


def _overlap(kept: list[Mapping[str, Sequence[int]]]) -> float:
    """Mean Jaccard overlap of kept experts between seeds."""
    sets = [{(layer, expert) for layer, experts in one.items() for expert in experts} for one in kept]
    return mean(len(a & b) / len(a | b) for a, b in combinations(sets, 2))


def stages(varied: str, head: str) -> str:
    """Shares after both stages, and scores, by the weight of the balance loss or by the schedule."""
    frame, lines = pd.DataFrame(read_rows(DATA / f"{varied}.json")), []
    for (task, value), mine in frame.groupby(["task", varied], sort=False):
        largest = f"{mine['largest_share_stage1'].max():.0%}"
        distances = [f"{mine[name].mean():.2f}" for name in ("distance_stage1", "distance_stage2")]
        scores = [f"{mine[name].mean():.3f}" for name in ("routed_score", "static_score")]
        lines.append([LABELS[task], value if isinstance(value, str) else f"{value:g}", largest, *distances, *scores])
    distance = ["distance from uniform, stage 1", "stage 2"]
    return table(["task", head, "largest share in stage 1", *distance, "routed", "pruned"], lines)


def throughput() -> str:
    """Times the dense model's speed, over the batches and lengths measured."""
    names = {
        "distilbert-6": "6 plain layers (DistilBERT)",
        "routed-6of12": "6 of 12, routed",
        "static-6of12-m2": "6 of 12, 2 experts a layer",
        "routed-11of12": "11 of 12, routed",
        "static-11of12-m1": "11 of 12, 1 expert a layer",
    }
    head = {
        ("pytorch", "float32"): "PyTorch",
        ("onnxruntime", "float32"): "ONNX Runtime",
        ("onnxruntime", "int8"): "ONNX Runtime int8",
    }
    cells: dict[str, dict[tuple[str, str], str]] = {words: {} for words in names.values()}
    frame = pd.DataFrame(read_rows(DATA / "throughput.json"))
    for (model, *key), mine in frame.groupby(["model", "runtime", "dtype"]):
        if model in names:
            speeds = mine["speedup_vs_dense"]
            cells[names[model]][tuple(key)] = f"{speeds.min():.1f}–{speeds.max():.1f}"
    return crossed("model", head, cells)


def alternatives(*, fastest: bool = False) -> str:
    """Score, size and speed of what answers the same task, also of the `fastest` form of each model alone; data and machine
    stand above.
    """
    frame, lines = pd.DataFrame(read_rows(DATA / "alternatives.json")), []
    if frame.empty:
        return ""
    if fastest:
        frame = frame.loc[frame.groupby("model", sort=False)["p50_ms"].idxmin()].reset_index(drop=True)
    for row in frame.to_dict("records"):
        score = share({"share": row["score"], "interval": row["interval"]})
        lead = points({"difference": row["lead"], "interval": row["lead_interval"]})
        cost = [f"{row[name]:.1f}" for name in ("mb", "p50_ms", "p95_ms")]
        form = f"{row['runtime']}, {row['precision']}"
        lines.append([row["model"], form, score, lead, *cost, f"{row['texts_per_s']:,.0f}"])
    one, metric = frame.iloc[0], metric_name(frame["metric"][0])
    about = f"{one['data']}, n = {one['n']:,}; {one['machine']}; SHRP has {one['effort']:.0%} of the steps of `retain`."
    head = ["", "served by", f"{metric}, %", "minus MiniLM-L6 int8, points", "MB", "p50 ms", "p95 ms", "texts/s"]
    return f"{about}\n\n{table(head, lines)}"


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "like for like": like_for_like,
    **{f"glue {recipe} {depth}": partial(glue, recipe, depth) for recipe, depth in COLUMNS},
    "controls": against_controls,
    "ablation": ablation,
    "extensions": extensions,
    "routing": routing,
    "entities": partial(by_depth, "conll2003"),
    "answers": partial(by_depth, "qamr"),
    "base size": partial(by_depth, "base"),
    "selection": selection,
    "routes": routes,
    "topk": topk,
    "balance": partial(stages, "balance", "weight"),
    "schedule": partial(stages, "schedule", "schedule"),
    "throughput": throughput,
    "alternatives": partial(alternatives, fastest=True),
    "all alternatives": alternatives,
}


def filled(text: str) -> str:
    """A page with all of its tables made from the data; a `DataError` if the page asks for a table that does not exist."""

    def one(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in TABLES:
            raise DataError(f"there is no table {name!r}; tables are {', '.join(TABLES)}.")
        return f"<!-- table: {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w ]+) -->\n.*?<!-- end -->", one, text, flags=re.DOTALL)


def main(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a page is stale.")] = False,
) -> None:
    """Fill the tables of README.md, docs/results.md and docs/glue.md, and write docs/data/summary.json and leads.json."""
    wanted = {page: filled(page.read_text(encoding="utf-8")) for page in PAGES}
    wanted |= {DATA / f"{made.__name__}.json": as_json(_of_glue(made)) for made in (summary, leads)}
    old = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    if check and old:
        raise DataError(f"{', '.join(path.name for path in old)} out of date: run python -m studies.results.")
    for path in old:
        write_text(path, wanted[path])
        stderr.print(f"wrote {path}")


if __name__ == "__main__":
    run(main)
