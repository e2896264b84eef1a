"""How fast is it? `python -m studies.throughput --json`: dense, routed and static models of BERT's shapes, timed in turns.

Speed depends on shapes, not on weights, so these are random. All models of a batch size and length are timed in one
interleaved run, so that drift and other load affect all equally; ratios are of medians.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from transformers import AutoModelForSequenceClassification, BertConfig, DistilBertConfig, PreTrainedModel

from shrp.cli.output import print_json, print_table, stderr
from shrp.evaluation.costs import cost
from shrp.evaluation.timing import latency, model_inputs
from shrp.export.graph import open_graph, quantise, write_graph
from shrp.families.families import encoder_layers
from shrp.families.family import install_hooks
from shrp.model.config import ShrpConfig
from shrp.model.convert import convert
from shrp.model.modules import with_layers
from shrp.pruning.plan import first_experts
from shrp.pruning.prune import prune
from studies.rows import run

SHAPES = [(batch, tokens) for tokens in (32, 128) for batch in (1, 8, 32)]
SECONDS, LEAST, MOST = 12.0, 3, 30
"""Aim for the timed rounds of one shape, and their smallest and largest number."""

_PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "numpy")

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
"""BERT-large's geometry; BERT-base's is the default."""

Call = Callable[[Mapping[str, Tensor]], object]


def models_of(config: BertConfig) -> dict[str, PreTrainedModel]:
    """Dense, routed and static models of a geometry, which share all weights they have in common, and a DistilBERT."""
    torch.manual_seed(0)
    dense = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa").eval()
    install_hooks(dense)  # its layers are shared by the others
    depth, models = len(encoder_layers(dense)), {"dense": dense}
    for count, m in ((depth // 2, 2), (depth - 1, 1)):  # converted layers, and experts of each static one
        converted, name = tuple(range(depth - count, depth)), f"{count}of{depth}"
        routed = with_layers(dense, {})  # converting replaces layers of this clone only
        convert(routed, ShrpConfig(converted)).eval()
        plan = first_experts(dict.fromkeys(converted, m))
        models[f"routed-{name}"] = routed
        models[f"static-{name}-m{m}"] = prune(routed, plan, share_weights=True).eval()
    distilled = DistilBertConfig(
        num_labels=2,
        n_layers=6,
        dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        vocab_size=config.vocab_size,
        n_heads=config.num_attention_heads,
        max_position_embeddings=config.max_position_embeddings,
    )
    plain = AutoModelForSequenceClassification.from_config(distilled, attn_implementation="sdpa")
    return models | {"distilbert-6": plain.eval()}


def calls_of(models: Mapping[str, PreTrainedModel], scratch: Path) -> Iterator[tuple[str, str, str, Call]]:
    """Every model in every runtime: model, dtype, runtime and a function that runs it. Live routing has no graph."""
    for name, model in models.items():
        yield name, "float32", "pytorch", lambda inputs, model=model: model(**inputs)
        if name.startswith("routed"):
            continue
        for dtype in ("float32", "int8"):
            path = scratch / f"{name}-{dtype}.onnx"
            write_graph(model, ["input_ids", "attention_mask"], path)
            if dtype == "int8":
                quantise(path, path.with_suffix(".int8"))
                path = path.with_suffix(".int8")
            yield name, dtype, "onnxruntime", _graph_call(path)


def _graph_call(path: Path) -> Call:
    session = open_graph(path)
    wanted = [given.name for given in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs[name].numpy() for name in wanted})


def measure(models: Mapping[str, PreTrainedModel], shapes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Time all models at each `(batch, tokens)`.

    Returns:
        Rows model, batch, tokens, dtype, runtime, median_ms, low_ms and high_ms (quartiles), repeats, speedup_vs_dense
        (dense float32 in PyTorch) and flop_limit (FLOPs of the dense model over this one's).
    """
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        runs = {tuple(key): call for *key, call in calls_of(models, Path(scratch))}
        for batch, tokens in shapes:
            stderr.print(f"batch {batch}, {tokens} tokens, {len(runs)} models")
            inputs = model_inputs(models["dense"], batch, tokens)
            flops = {name: cost(model, tokens).model_flops for name, model in models.items()}
            fns = {key: partial(call, inputs) for key, call in runs.items()}
            once = latency(fns, repeats=1)["median_ms"].sum() / 1000
            rounds = max(LEAST, min(MOST, int(SECONDS / once)))
            timed = latency(fns, repeats=rounds, warmup=0).set_index("name").to_dict("index")
            dense = timed["dense", "float32", "pytorch"]["median_ms"]
            for (model, dtype, runtime), row in timed.items():
                about = {"model": model, "batch": batch, "tokens": tokens, "dtype": dtype, "runtime": runtime}
                row["flop_limit"] = round(flops["dense"] / flops[model], 3)
                rows.append(about | row | {"speedup_vs_dense": round(dense / row["median_ms"], 3)})
    return rows


def machine() -> dict[str, Any]:
    """What the times are times of: processor, cores, threads in use, vector instructions."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that do the work, where they are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    """The processor's name: Linux keeps it in a file, elsewhere Python's guess must do."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One batch of 8 times 32 tokens alone.")] = False,
    large: Annotated[bool, typer.Option("--large", help="BERT-large's shapes.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Time models side by side on this machine."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    config = BertConfig(num_labels=2, **(LARGE if large else {}))
    rows = measure(models_of(config), [(8, 32)] if quick else SHAPES)
    if json:
        print_json({"machine": machine() | {"load_before": load}, "versions": versions(), "rows": rows})
    else:
        print_table(f"latency, {machine()['cpu']}, {torch.get_num_threads()} threads", rows)


if __name__ == "__main__":
    run(main)
