"""What routing costs: a routed model against the static one that computes as much, by batch and length.

Both keep one expert a layer for each input, so that all they differ in is the router and the choice of weights for
each input. They are timed in one interleaved run, and the ratio is taken round by round.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import PreTrainedModel

from shrp.checkpoints.checkpoint import load
from shrp.checkpoints.info import usage_in
from shrp.cli.output import stderr
from shrp.errors import ShrpError
from shrp.evaluation.costs import cost
from shrp.evaluation.timing import latency, model_inputs
from shrp.families.families import encoder_layers
from shrp.model.convert import expert_layers
from shrp.model.gates import record_routing
from shrp.pruning.plan import first_experts, make_plan
from shrp.pruning.prune import prune
from shrp.studies.studies import FILES
from studies.command import numbers
from studies.contenders import BERT_BASE, bert_base
from studies.experiments.results_file import ResultsFile
from studies.throughput import CHECKPOINTS

WARMUP = 2


def models_of(geometry: str, checkpoints: Path) -> dict[str, tuple[PreTrainedModel, PreTrainedModel]]:
    """`6of12` or the like -> a routed model and the static one of one expert a layer, sharing weights.

    Args:
        geometry: `bert-base` (random weights, at two depths) or the name of a routed checkpoint.
    """
    if geometry == BERT_BASE:
        found = {
            name.removeprefix("routed-"): model
            for name, model in bert_base().items()
            if name.startswith("routed-")
        }
        plans = {name: first_experts(dict.fromkeys(expert_layers(model), 1)) for name, model in found.items()}
    else:
        loaded = load(checkpoints / geometry)
        converted = expert_layers(loaded.model)
        if not converted:
            raise ShrpError(f"{geometry} has no routed layer, so there is no routing to time.")
        name = f"{len(converted)}of{len(encoder_layers(loaded.model))}"
        found = {name: loaded.model.eval()}
        plans = {name: make_plan(usage_in(loaded.info), per_layer=1)}
    return {
        name: (model, prune(model, plans[name], share_weights=True).eval()) for name, model in found.items()
    }


@torch.no_grad()
def spread(model: PreTrainedModel, tokens: int) -> None:
    """Give fresh routers biases under which random inputs of this length go to many experts, as in a trained model.

    A fresh router sends nearly all to one expert, whose weights then stay in the caches.
    """
    inputs = model_inputs(model, 32, tokens, seed=1)
    for index, layer in expert_layers(model).items():
        layer.router.dense.bias.zero_()
        with record_routing() as record:
            model(**inputs)
        # What all inputs have in common must not decide.
        layer.router.dense.bias -= record.probs(index).log().mean(0)


def one_shape(
    routed: PreTrainedModel, static: PreTrainedModel, batch: int, tokens: int, rounds: int
) -> dict[str, Any]:
    """Both latencies at one batch and length, and their ratio with its quartiles over rounds."""
    inputs = model_inputs(routed, batch, tokens)
    calls = {"routed": partial(routed, **inputs), "static": partial(static, **inputs)}
    latency(calls, repeats=1, warmup=WARMUP)
    # One round at a time, to have the two times of a round side by side.
    each = [latency(calls, 1, warmup=0, seed=r).set_index("name")["median_ms"] for r in range(rounds)]
    times = {name: np.array([one[name] for one in each]) for name in calls}
    ratio = times["routed"] / times["static"]
    with torch.inference_mode(), record_routing() as record:
        routed(**inputs)
    chosen = [len(record.probs(layer).argmax(-1).unique()) for layer in record.layers]
    flops = cost(routed, tokens).relative_to(cost(static, tokens))["model_flops"]
    row: dict[str, Any] = {"batch": batch, "tokens": tokens, "rounds": rounds, "flop_ratio": flops}
    for name, values in (("routed_ms", times["routed"]), ("static_ms", times["static"]), ("ratio", ratio)):
        low, median, high = np.percentile(values, [25, 50, 75])
        row |= {name: median, f"{name}_low": low, f"{name}_high": high}
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} | {
        "experts_chosen": round(float(np.mean(chosen)), 2)
    }


def main(
    geometry: Annotated[
        str, typer.Option(help=f"{BERT_BASE} or names of routed checkpoints, separated by commas.")
    ] = f"{BERT_BASE},sst2-6of12,sst2-11of12",
    checkpoints: Annotated[Path, typer.Option(help="Folder of checkpoints.")] = CHECKPOINTS,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8,32",
    tokens: Annotated[str, typer.Option(help="Lengths, without padding.")] = "16,32,128",
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 15,
    out: Annotated[Path, typer.Option(help="The file of results.")] = FILES / "overhead.json",
) -> None:
    """Latency of routed against static models that compute as much, side by side; no training."""
    file = ResultsFile(out, "python -m studies.experiments overhead")
    file.refuse_another_machine()
    for name in geometry.split(","):
        for depth, (routed, static) in models_of(name, checkpoints).items():
            for length in numbers(tokens):
                if name == BERT_BASE:
                    spread(routed, length)
                for size in numbers(batch):
                    row = one_shape(routed, static, size, length, rounds)
                    file.put([row], geometry=name, depth=depth, batch=size, tokens=length)
                    stderr.print(
                        f"{name}, {depth}, batch {size}, {length} tokens: routed {row['ratio']:.3f} times static "
                        f"({row['ratio_low']:.3f} to {row['ratio_high']:.3f})"
                    )
