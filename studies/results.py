"""Write the tables of README.md and docs from docs/data: `python -m studies.results`.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the text around it is written by hand. The Results page
of the app reads docs/data/summary.json and leads.json, which are written too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from shrp.cli.output import stderr
from shrp.errors import DataError
from shrp.files import write_text
from studies.rows import DATA, as_json, read_rows, run
from studies.summary import NAMES, TASKS, describe, leads, summary

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "glue.md")
LABELS = {
    "cola": "CoLA",
    "mrpc": "MRPC",
    "rte": "RTE",
    "stsb": "STS-B",
    "sst2": "SST-2",
    "qnli": "QNLI",
    "qqp": "QQP",
}
SIZES = {"6of12": 2, "11of12": 1}
"""Depth -> experts per layer of the pruned model in the main table."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def share(row: Mapping[str, Any] | None, name: str = "share") -> str:
    """A share with its 95% interval, in percent."""
    if row is None:
        return ""
    text = f"{100 * row[name]:.1f}"
    if row.get("interval"):
        text += " ({:.1f}–{:.1f})".format(*(100 * end for end in row["interval"]))
    return text


def points(row: Mapping[str, Any]) -> str:
    """A difference with its 95% interval, in points."""
    low, high = row["interval"]
    return f"{100 * row['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _main_rows(rows: list[dict[str, Any]], recipe: str, depth: str) -> list[dict[str, Any]]:
    """The models of the main table: SHRP routed, pruned, fine-tuned, and the fine-tuned controls."""
    m = SIZES[depth]
    chosen = [row for row in rows if row["recipe"] == recipe and row["depth"] == depth]
    return [
        row
        for row in chosen
        if row["routed"]
        or row["model"] in ("dropped", "width", "self_only")
        or row["experts_per_layer"] in ((m, 12) if row["model"] == "no_router" else (m,))
    ]


def headline() -> str:
    """The README's table: `retain` and `paper`, fine-tuned after pruning, SHRP next to every control."""
    rows = summary(read_rows(DATA / "glue.json"))
    found: dict[str, dict[tuple[str, str], Any]] = {}
    for recipe in ("retain", "paper"):
        for depth in SIZES:
            for row in _main_rows(rows, recipe, depth):
                if row["fine_tuned_after_pruning"]:
                    full = row["model"] == "no_router" and row["experts_per_layer"] == 12
                    name = NAMES[row["model"]] + (", all experts kept" if full else "")
                    found.setdefault(name, {})[recipe, depth] = row
                elif row["model"] == "shrp" and not row["routed"]:
                    found.setdefault("SHRP, not fine-tuned after pruning", {})[recipe, depth] = row
    columns = [("retain", "6of12"), ("retain", "11of12"), ("paper", "6of12"), ("paper", "11of12")]
    head = ["", *(f"{recipe}, {depth.replace('of', ' of ')}" for recipe, depth in columns)]
    first = ("SHRP", "SHRP, not fine-tuned after pruning")
    order = sorted(found, key=lambda name: (name not in first, first.index(name) if name in first else 0))
    return table(head, ([name, *(share(found[name].get(column)) for column in columns)] for name in order))


def glue(recipe: str, depth: str) -> str:
    """One part of the GLUE table: percent of the teacher's score by task."""
    rows = _main_rows(summary(read_rows(DATA / "glue.json")), recipe, depth)
    head = ["model", "fine-tuned", *(LABELS[task] for task in TASKS), "mean", "encoder"]
    return table(
        head,
        (
            [
                describe(row),
                "yes" if row["fine_tuned_after_pruning"] else "no",
                *(f"{100 * row['by_task'][task]['share']:.1f}" for task in TASKS),
                share(row),
                f"{row['encoder_params_share']:.1%}",
            ]
            for row in rows
        ),
    )


def against_controls() -> str:
    """SHRP's lead over each fine-tuned control."""
    found = leads(read_rows(DATA / "glue.json"))
    columns = [("retain", "6of12"), ("retain", "11of12"), ("paper", "6of12"), ("paper", "11of12")]
    by_name: dict[str, dict[tuple[str, str], str]] = {}
    for row in found:
        full = ", all experts kept" * (row["model"] == "no_router" and row["experts_per_layer"] == 12)
        by_name.setdefault(NAMES[row["model"]] + full, {})[row["recipe"], row["depth"]] = points(row)
    head = ["SHRP minus", *(f"{recipe}, {depth.replace('of', ' of ')}" for recipe, depth in columns)]
    return table(
        head, ([name, *(cells.get(column, "") for column in columns)] for name, cells in by_name.items())
    )


def like_for_like() -> str:
    """Our figures without fine-tuning after pruning next to the paper's, and with it."""
    rows = summary(read_rows(DATA / "glue.json"))

    def ours(recipe: str, depth: str, tuned: bool) -> str:
        wanted = {"recipe": recipe, "depth": depth, "model": "shrp", "routed": False}
        wanted |= {"experts_per_layer": SIZES[depth], "fine_tuned_after_pruning": tuned}
        return share(next((row for row in rows if wanted.items() <= row.items()), None))

    paper = {row["name"]: row for row in read_rows(DATA / "published.json")}
    lines = []
    for depth, words in (("6of12", "6 of 12 layers"), ("11of12", "11 of 12 layers")):
        theirs = f"{100 * paper[f'SHRP paper, {words}']['share']:.1f}"
        lines.append(
            [f"{words}, no fine-tuning", theirs, ours("paper", depth, False), ours("retain", depth, False)]
        )
        lines.append(
            [
                f"{words}, fine-tuned after pruning",
                "",
                ours("paper", depth, True),
                ours("retain", depth, True),
            ]
        )
    return table(["", "the paper (BERT-base)", "`paper` recipe", "`retain` recipe"], lines)


def ablation() -> str:
    """What each part of the recipe is worth."""
    by_variant: dict[tuple[str, str], dict[str, Any]] = {}
    for row in read_rows(DATA / "ablation.json"):
        stage = (
            "routed" if row["model"] == "routed" else "tuned" if row["fine_tuned_after_pruning"] else "pruned"
        )
        by_variant.setdefault((row["task"], row["variant"]), {})[stage] = row["score"] / row["teacher_score"]
    return table(
        ["task", "recipe", "routed", "pruned", "fine-tuned"],
        (
            [
                LABELS[task],
                variant,
                *(f"{100 * stages[stage]:.1f}" for stage in ("routed", "pruned", "tuned")),
            ]
            for (task, variant), stages in by_variant.items()
        ),
    )


def selection() -> str:
    """Score by what experts are selected by, percent of the routed model's."""
    rows = [row for row in read_rows(DATA / "selection.json") if not row["calibrated"]]
    kinds = ("usage", "gate_norm", "ablation", "fitted", "random")
    cells: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        cells.setdefault((row["checkpoint"], row["per_layer"]), {})[row["selection"]] = (
            row["score"] / row["routed"]
        )
    return table(
        ["checkpoint", "experts a layer", *(kind.replace("_", " x ") for kind in kinds)],
        (
            [name, str(m), *(f"{100 * found[kind]:.1f}" if kind in found else "" for kind in kinds)]
            for (name, m), found in sorted(cells.items())
            if m == SIZES[name.rpartition("-")[2]]
        ),
    )


def routes() -> str:
    """Change of the score when examples exchange their routes."""
    cells: dict[str, dict[str, str]] = {}
    for row in read_rows(DATA / "routes.json"):
        if row["change_interval"]:
            change = {"difference": row["change"], "interval": row["change_interval"]}
            cells.setdefault(row["checkpoint"], {})[row["layer"]] = points(change)
    head = ["checkpoint", "all routes permuted", "permuted among equal predictions", "mixture of all experts"]
    return table(
        head,
        (
            [name, *(found.get(kind, "") for kind in ("all", "alike", "mixture"))]
            for name, found in cells.items()
        ),
    )


def topk() -> str:
    """Score and stability of the kept set by Top-k."""
    rows = read_rows(DATA / "topk.json")
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        for k in sorted({row["top_k"] for row in rows}):
            mine = [row for row in rows if row["task"] == task and row["top_k"] == k]
            cell = [LABELS[task], str(k), str(len({row["seed"] for row in mine}))]
            for budget in (None, 12, 24, 48):
                cell.append(f"{100 * mean(row['retained'] for row in mine if row['budget'] == budget):.1f}")
            kept = [row["kept"] for row in mine if row["budget"] == 12]
            cell.append(f"{_overlap(kept):.2f}" if len(kept) > 1 else "")
            lines.append(cell)
    return table(["task", "k", "seeds", "routed", "12 experts", "24", "48", "overlap of the 12 kept"], lines)


def _overlap(kept: list[Mapping[str, Sequence[int]]]) -> float:
    """Mean Jaccard overlap of kept experts between seeds."""
    sets = [{(layer, expert) for layer, experts in one.items() for expert in experts} for one in kept]
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
    return mean(len(a & b) / len(a | b) for a, b in pairs)


def balance() -> str:
    """What the balance loss does to shares and scores."""
    rows = read_rows(DATA / "balance.json")
    keys = dict.fromkeys((row["task"], row["balance"]) for row in rows)
    lines = []
    for task, weight in keys:
        mine = [row for row in rows if (row["task"], row["balance"]) == (task, weight)]
        lines.append(
            [
                LABELS[task],
                f"{weight:g}",
                f"{max(row['largest_share_stage1'] for row in mine):.0%}",
                *(
                    f"{mean(row[name] for row in mine):.2f}"
                    for name in ("distance_stage1", "distance_stage2")
                ),
                *(f"{mean(row[name] for row in mine):.3f}" for name in ("routed_score", "static_score")),
            ]
        )
    head = [
        "task",
        "weight",
        "largest share in stage 1",
        "distance from uniform, stage 1",
        "stage 2",
        "routed",
        "pruned",
    ]
    return table(head, lines)


def throughput() -> str:
    """Times the dense model's speed, over the batches and lengths measured."""
    rows = [row for row in read_rows(DATA / "throughput.json") if row["model"] != "dense"]
    cells: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        found = cells.setdefault(row["model"], {})
        found.setdefault((row["runtime"], row["dtype"]), []).append(row["speedup_vs_dense"])
    columns = [("pytorch", "float32"), ("onnxruntime", "float32"), ("onnxruntime", "int8")]
    names = {
        "distilbert-6": "6 plain layers (DistilBERT)",
        "routed-6of12": "6 of 12, routed",
        "static-6of12-m2": "6 of 12, 2 experts a layer",
        "routed-11of12": "11 of 12, routed",
        "static-11of12-m1": "11 of 12, 1 expert a layer",
    }
    head = ["model", "PyTorch", "ONNX Runtime", "ONNX Runtime int8"]
    return table(
        head,
        ([words, *(_range(cells.get(model, {}).get(c)) for c in columns)] for model, words in names.items()),
    )


def _range(values: Sequence[float] | None) -> str:
    return f"{min(values):.1f}–{max(values):.1f}" if values else ""


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "like for like": like_for_like,
    **{
        f"glue {recipe} {depth}": lambda recipe=recipe, depth=depth: glue(recipe, depth)
        for recipe in ("retain", "paper")
        for depth in SIZES
    },
    "controls": against_controls,
    "ablation": ablation,
    "selection": selection,
    "routes": routes,
    "topk": topk,
    "balance": balance,
    "throughput": throughput,
}


def filled(text: str) -> str:
    """A page with all of its tables made from the data.

    Raises:
        DataError: The page asks for a table that does not exist.
    """

    def one(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in TABLES:
            raise DataError(f"there is no table {name!r}; tables are {', '.join(TABLES)}.")
        return f"<!-- table: {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w ]+) -->\n.*?<!-- end -->", one, text, flags=re.DOTALL)


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a page is out of date.")
    ] = False,
) -> None:
    """Fill the tables of README.md, docs/results.md and docs/glue.md, and write docs/data/summary.json and leads.json."""
    wanted = {page: filled(page.read_text(encoding="utf-8")) for page in PAGES}
    rows = read_rows(DATA / "glue.json")
    wanted |= {DATA / "summary.json": as_json(summary(rows)), DATA / "leads.json": as_json(leads(rows))}
    old = [
        path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if check and old:
        raise DataError(f"{', '.join(path.name for path in old)} out of date: run python -m studies.results.")
    for path in old:
        write_text(path, wanted[path])
        stderr.print(f"wrote {path}")


if __name__ == "__main__":
    run(main)
