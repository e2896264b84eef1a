"""Latency on this machine, on request: the dense model, the checkpoint's and prunings of it, side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial

import pandas as pd
import streamlit as st
import torch
from transformers import PreTrainedModel

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.batching import longest_input
from shrp.errors import ShrpError
from shrp.evaluation.costs import TOKENS, cost, dense_cost
from shrp.evaluation.timing import dense_like, latency, model_inputs
from shrp.model.convert import layer_kinds, num_experts_of
from shrp.phrases import counted, listed
from shrp.pruning.plan import PruningPlan, first_experts
from shrp.pruning.prune import prune
from ui import state
from ui.bound import clamp
from ui.downloads import downloads
from ui.remaining import Remaining
from ui.store import results
from ui.text import escape

BATCHES = (1, 8)
REPEATS, WARMUP = 10, 2
DENSE = "dense"
KEPT = "latency_each"
_ONE_AT_A_TIME = threading.Lock()


def measure(
    checkpoint: Checkpoint,
    plans: Mapping[str, PruningPlan],
    tokens: int = TOKENS,
    progress: Callable[[int, int], None] | None = None,
    waiting: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Dense, the checkpoint's own model and its prunings, in float32, in one interleaved run a batch size.

    Two sessions that ask at once are timed one after the other.

    Args:
        plans: name -> pruning, of a routed checkpoint.
        progress: called with timed calls done and in all.
        waiting: called now and then while another session's models are timed; it may raise, which ends the waiting.

    Returns:
        One row a model and batch size: `shrp.evaluation.timing.latency`'s columns, `batch`, `tokens`, and `flop_share`, the
        model's FLOPs over the dense model's, whole models.

    Raises:
        ShrpError: a plan does not fit.
    """
    model = checkpoint.model
    tokens = min(tokens, longest_input(model, checkpoint.tokenizer))
    models: dict[str, PreTrainedModel] = {
        DENSE: dense_like(model),
        own_name(checkpoint): model,
    }
    models |= {name: prune(model, plan, share_weights=True).eval() for name, plan in plans.items()}
    dense = dense_cost(model, tokens)
    shares = {name: cost(one, tokens).relative_to(dense)["model_flops"] for name, one in models.items()}
    per_batch = len(models) * (REPEATS + WARMUP)
    frames = []
    while not _ONE_AT_A_TIME.acquire(timeout=0.5):
        waiting()
    try:
        for number, batch in enumerate(BATCHES):
            inputs = model_inputs(model, batch, tokens)
            before = number * per_batch

            def step(done: int, _: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + done, len(BATCHES) * per_batch)

            times = latency(
                {name: partial(one, **inputs) for name, one in models.items()},
                repeats=REPEATS,
                warmup=WARMUP,
                progress=step,
            )
            frames.append(times.assign(batch=batch, tokens=tokens, flop_share=times["name"].map(shares)))
    finally:
        _ONE_AT_A_TIME.release()
    return pd.concat(frames, ignore_index=True)


def own_name(checkpoint: Checkpoint) -> str:
    """What a checkpoint's model is called beside the dense one: by its converted layers, or as it is."""
    kinds = {*layer_kinds(checkpoint.model)} - {"dense"}
    return " and ".join(sorted(kinds)) if kinds else "this checkpoint"


def table(times: pd.DataFrame) -> pd.DataFrame:
    """`measure`'s frame as people read it, with the speed against dense and the limit that FLOPs set to it."""
    base = times[times["name"] == DENSE].set_index("batch")["median_ms"]
    quartiles = [
        f"{low:.1f} to {high:.1f}" for low, high in zip(times["low_ms"], times["high_ms"], strict=True)
    ]
    return times[["name", "batch", "tokens", "median_ms"]].assign(
        **{
            "quartiles": quartiles,
            "inputs a second": 1e3 * times["batch"] / times["median_ms"],
            "speed against dense": times["batch"].map(base) / times["median_ms"],
            "FLOPs of dense": 100 * times["flop_share"],
            "limit by FLOPs": 1 / times["flop_share"],
        }
    )


@st.fragment
def section(checkpoint: Checkpoint, plans: Mapping[str, PruningPlan], name: str) -> None:
    """A button that measures, with progress, and what it found; kept for all sessions.

    Args:
        name: the checkpoint's, for the file of its times.
    """
    names = "; ".join([DENSE, own_name(checkpoint), *plans])
    kept = results("latency", 64)
    key = (checkpoint.fingerprint, tuple((name, plan.key()) for name, plan in plans.items()))
    st.markdown(
        f"Times these models side by side on this machine, in float32: {escape(names)}. Batches of "
        f"{listed(map(str, BATCHES))} inputs of up to {TOKENS} tokens, {REPEATS} timed calls each, in an order drawn "
        "anew every round. Other load makes it noisy. Another setting or page ends it."
    )
    if st.button("Measure on this machine", key="measure-latency", icon=":material/timer:"):
        bar, left = st.progress(0.0, "Timing …"), Remaining()
        try:
            found = measure(
                checkpoint,
                plans,
                progress=lambda done, n: bar.progress(
                    done / n, f"Timing: call {done} of {n}{left.said(done / n)}"
                ),
                waiting=lambda: bar.progress(0.0, "Timing, once another session's is done …"),
            )
        except ShrpError as error:
            state.show_error(error)
            return
        finally:
            bar.empty()
        kept.put(key, found)
    if (times := kept.get(key)) is None:
        return
    st.dataframe(
        table(times),
        hide_index=True,
        width="content",
        alt="Latencies by model and batch",
        column_config={
            "name": "model",
            "median_ms": _number("median", "%.1f ms"),
            "quartiles": "quartiles, ms",
            "inputs a second": _number("inputs a second", "%.1f"),
            "speed against dense": _number("speed against dense", "%.2f×"),
            "FLOPs of dense": _number("FLOPs of dense", "%.1f%%"),
            "limit by FLOPs": _number("limit by FLOPs", "%.2f×"),
        },
    )
    downloads(
        lambda: table(times).assign(threads=torch.get_num_threads(), torch=torch.__version__),
        "latency",
        f"{name}-latency",
    )
    st.caption(
        f"{counted(torch.get_num_threads(), 'thread')}. Speed: dense median ÷ this model's, at the same batch size. "
        "FLOPs: of the whole model, without the embedding look-up. Limit: dense FLOPs ÷ this model's, the largest "
        "speed-up from less work."
    )


@st.fragment
def overview_section(checkpoint: Checkpoint, name: str, *, routed: bool) -> None:
    """The Overview's part: for a routed checkpoint with a pruning of as many experts a layer as a person picks."""
    st.header("Latency beside FLOPs", anchor="latency")
    if set(layer_kinds(checkpoint.model)) == {"dense"}:
        st.caption("All layers are dense, so there is nothing to compare with.")
        return
    plans = {}
    if routed:
        experts = num_experts_of(checkpoint.model)
        clamp(KEPT, 1, experts)
        m = st.number_input(
            "Experts kept per layer",
            min_value=1,
            max_value=experts,
            value=min(2, experts),
            step=1,
            key=KEPT,
            bind="query-params",
            width=260,
        )
        kept = max(1, min(int(m or 1), experts))
        plans[f"static, {kept} a layer"] = first_experts(dict.fromkeys(checkpoint.info.config.layers, kept))
    section(checkpoint, plans, name)


def _number(label: str, form: str) -> object:
    return st.column_config.NumberColumn(label, format=form)
