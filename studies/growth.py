"""How time and memory grow with the number of examples: `python -m studies.growth --json`.

Examples are the shipped probe sentences of SST-2, drawn with replacement. Each kind of work and size runs in a process of its
own, on one thread. Time is that of the processor, so other load hardly matters. Memory is the most that the process takes
while it works, above what it takes with model and data loaded; the data itself shares its texts, so it takes little.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import psutil
import torch
import typer
from streamlit.testing.v1 import AppTest
from transformers import BertConfig, BertForSequenceClassification

from shrp.analysis.usage import measure_usage
from shrp.checkpoints.checkpoint import Checkpoint, load
from shrp.checkpoints.saving import save
from shrp.cli.output import print_json, print_table, stderr
from shrp.data.sources import DATA_DIR, load_probe
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import evaluate
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert, expert_layers, num_experts_of
from shrp.pruning.live import LiveEvaluator
from shrp.pruning.plan import make_plan
from studies.rows import numbers, run
from studies.throughput import machine, versions

ROOT = Path(__file__).parent.parent
APP, CHECKPOINT = ROOT / "app.py", ROOT / "checkpoints" / "sst2-11of12"
PRELOADED = ["shrp.analysis.usage", "shrp.pruning.live", "transformers.models.bert.modeling_bert"]
"""Imported once for all processes."""
PRUNINGS = (1, 2, 4)
"""Experts per layer of a sweep's plans."""


def sweep(made: Checkpoint, data: TextData) -> None:
    """Score prunings of three sizes."""
    shares = {layer: np.ones(num_experts_of(made.model)) for layer in expert_layers(made.model)}
    plans = [make_plan(shares, per_layer=m) for m in PRUNINGS]
    deque(LiveEvaluator(made.model, made.tokenizer, data).sweep(plans), maxlen=0)


def app(made: Checkpoint, data: TextData) -> None:
    """Open the app's pages that measure, one after the other, with the data as those of its data folder."""
    with TemporaryDirectory() as folder:
        (place := Path(folder, data.task.name)).mkdir()
        texts = [text for (text,) in data.texts]
        pd.DataFrame({"sentence": texts, "label": data.labels}).to_parquet(place / "validation.parquet")
        for name in ("model", "other"):
            save(made.model, made.tokenizer, made.info, Path(folder, "checkpoints", name))
            with torch.no_grad():
                made.model.classifier.bias += 1  # a copy would be known already
        os.environ |= {DATA_DIR: folder, "SHRP_CHECKPOINTS": f"{folder}/checkpoints", "SHRP_CACHE": f"{folder}/cache"}
        opened = AppTest.from_file(APP, default_timeout=36_000)
        # By itself Compare takes a shipped checkpoint, which is larger.
        opened.query_params |= {"checkpoint": "model", "source": "glue", "b": "other"}
        for page in ("expert_usage", "pruning_lab", "compare"):
            opened.switch_page(f"pages/{page}.py").run()
            if opened.exception or opened.error:
                raise RuntimeError(f"{page}: {[one.value for one in (*opened.exception, *opened.error)]}")


WORK: dict[str, Callable[[Checkpoint, TextData], object]] = {
    "usage": lambda made, data: measure_usage(made.model, made.tokenizer, data),
    "evaluation": lambda made, data: evaluate(made.model, made.tokenizer, data),
    "sweep": sweep,
    "app": app,
}


def resampled(data: TextData, size: int) -> TextData:
    """So many examples, drawn with replacement."""
    rows = np.random.default_rng(0).integers(len(data), size=size)
    texts, slices = ([values[i] for i in rows] for values in (data.texts, data.slices))
    return TextData(data.task, f"{data.name}, {size} drawn", tuple(texts), data.labels[rows], tuple(slices))


def tiny(made: Checkpoint) -> Checkpoint:
    """A random model of 3 layers, 2 of them converted, with the tokenizer of a checkpoint."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = BertForSequenceClassification(BertConfig(vocab_size=len(made.tokenizer), **sizes))
    config = ShrpConfig((1, 2))
    convert(model, config)
    return replace(made, model=model.eval(), info=replace(made.info, config=config, usage={}, scores=()))


def measured(kind: str, size: int, folder: Path, small: bool) -> dict[str, Any]:
    """Time and memory of one kind of work at one size; to be called in a fresh process."""
    torch.set_num_threads(1)
    made = load(folder)
    made = tiny(made) if small else made
    probe = load_probe(made.info.task.name)
    WORK[kind](made, resampled(probe, 64))  # what is imported or kept at first use does not count
    data = resampled(probe, size)
    with suppress(OSError):  # elsewhere than on Linux loading a large checkpoint may count
        Path("/proc/self/clear_refs").write_text("5")  # forgets the most memory taken so far
    before, started = psutil.Process().memory_info().rss, time.process_time()
    WORK[kind](made, data)
    seconds = time.process_time() - started
    unit = 1 if sys.platform == "darwin" else 1024
    peak = max(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    row = {"work": kind, "model": "random, 2 of 3 layers" if small else folder.name, "n": size}
    row |= {"cpu_seconds": seconds, "us_per_example": 1e6 * seconds / size}
    return row | {"memory_mib": (peak - before) / 2**20, "bytes_per_example": (peak - before) / size}


def main(
    sizes: Annotated[str, typer.Option(help="Numbers of examples, ascending.")] = "1000,10000,100000",
    small: Annotated[bool, typer.Option("--tiny", help="A tiny random model instead of sst2-11of12.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure time and peak memory at each size; `ratio` is the time per example over that at the first size."""
    rows: list[dict[str, Any]] = []
    fresh = get_context("forkserver")
    fresh.set_forkserver_preload(PRELOADED)
    for kind in WORK:
        first = None
        for size in numbers(sizes, "--sizes"):
            stderr.print(f"{kind}, {size:,} examples")
            with ProcessPoolExecutor(1, mp_context=fresh) as child:
                row = child.submit(measured, kind, size, CHECKPOINT, small).result()
            first = first or row["us_per_example"]
            rows.append(row | {"ratio": row["us_per_example"] / first})
    if json:
        print_json({"machine": machine(), "versions": versions(), "rows": rows})
    else:
        print_table("growth with the number of examples", rows)


if __name__ == "__main__":
    run(main)
