"""What the studies measured, read from docs/data and docs/results.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from shrp.errors import DataError

DOCS = Path(__file__).parents[2] / "docs"
TASKS = {"cola": "CoLA", "mrpc": "MRPC", "rte": "RTE", "stsb": "STS-B", "sst2": "SST-2", "qnli": "QNLI"}
DEPTHS = {"6of12": "6 of 12 layers", "11of12": "11 of 12 layers"}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a file in docs/data; none if it is missing; a `DataError` if the file is not a list of rows."""
    path = DOCS / "data" / f"{name}.json"
    try:
        return [dict(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path.name} cannot be read; `python -m studies.results` writes it.") from error


def compared(recipe: str, depth: str) -> list[dict[str, Any]]:
    """The models of one recipe and depth that stand next to each other, SHRP's first."""
    found = [r for r in rows("summary") if (r["recipe"], r["depth"]) == (recipe, depth) and r["compared"]]
    return sorted(found, key=lambda r: (r["model"] != "shrp", -r["fine_tuned_after_pruning"], -r["share"]))


def table(models: list[dict[str, Any]]) -> pd.DataFrame:
    """Percent of the dense model's score by task, one row per model."""
    lines = []
    for row in models:
        line = {"model": row["name"], "fine-tuned after pruning": row["fine_tuned_after_pruning"]}
        line |= {"mean": 100 * row["share"], "95% CI": ""}
        if row["interval"]:
            line["95% CI"] = "{:.1f}–{:.1f}".format(*(100 * end for end in row["interval"]))
        of = row["by_task"]
        line |= {words: 100 * of[task]["share"] for task, words in TASKS.items() if task in of}
        lines.append(line | {"encoder": 100 * row["encoder_params_share"]})
    return pd.DataFrame(lines)


def questions() -> dict[str, str]:
    """The sections of docs/results.md: question -> Markdown, without the markers of tables."""
    try:
        text = (DOCS / "results.md").read_text(encoding="utf-8")
    except OSError:
        return {}
    text = re.sub(r"<!--.*?-->\n?", "", text)
    # Links into the repository lead nowhere here.
    text = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}
