"""Latency on this machine, on request: the dense model, the checkpoint's and a pruning of it, side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial

import pandas as pd
import streamlit as st
import torch

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.batching import longest_input
from shrp.evaluation.costs import TOKENS
from shrp.evaluation.timing import dense_like, latency, model_inputs
from shrp.model.convert import layer_kinds, num_experts_of
from shrp.phrases import counted, listed
from shrp.pruning.plan import PruningPlan, first_experts
from shrp.pruning.prune import prune
from ui import state
from ui.downloads import downloads
from ui.store import once, results
from ui.text import escape

BATCHES = (1, 8)
REPEATS, WARMUP = 10, 2
DENSE = "dense"
PRUNED_TO = 2
"""Experts a layer of the pruned model that is timed next to a routed one."""
_STORE = ("latency", 64)
_ONE_AT_A_TIME = threading.Lock()


def measure(
    checkpoint: Checkpoint, plans: Mapping[str, PruningPlan], progress: Callable[[int, int], None]
) -> pd.DataFrame:
    """Time dense, the checkpoint's own model and its prunings (`plans`, by name) in float32, interleaved, per batch size.

    Sessions that ask at once are timed one after the other.

    Returns:
        One row a model and batch size: `shrp.evaluation.timing.latency`'s columns, `batch` and `tokens`.

    Raises:
        ShrpError: a plan does not fit.
    """
    model = checkpoint.model
    tokens = min(TOKENS, longest_input(model, checkpoint.tokenizer))
    models = {DENSE: dense_like(model), own_name(checkpoint): model}
    models |= {name: prune(model, plan, share_weights=True).eval() for name, plan in plans.items()}
    each, frames = len(models) * (REPEATS + WARMUP), []
    with _ONE_AT_A_TIME:
        for number, batch in enumerate(BATCHES):
            inputs, before = model_inputs(model, batch, tokens), number * each
            calls = {name: partial(one, **inputs) for name, one in models.items()}
            times = latency(
                calls,
                repeats=REPEATS,
                warmup=WARMUP,
                progress=lambda done, _, before=before: progress(before + done, len(BATCHES) * each),
            )
            frames.append(times.assign(batch=batch, tokens=tokens))
    return pd.concat(frames, ignore_index=True)


def own_name(checkpoint: Checkpoint) -> str:
    """What a checkpoint's model is called next to the dense one: by its converted layers."""
    return " and ".join(sorted({*layer_kinds(checkpoint.model)} - {"dense"}))


def table(times: pd.DataFrame) -> pd.DataFrame:
    """`measure`'s frame as people read it, with the speed against dense."""
    base = times[times["name"] == DENSE].set_index("batch")["median_ms"]
    found = times[["name", "batch", "tokens"]].rename(columns={"name": "model"})
    found["median, ms"] = times["median_ms"].round(1)
    found["quartiles, ms"] = [
        f"{low:.1f} to {high:.1f}" for low, high in zip(times["low_ms"], times["high_ms"], strict=True)
    ]
    found["examples a second"] = (1e3 * times["batch"] / times["median_ms"]).round(1)
    found["speed against dense"] = (times["batch"].map(base) / times["median_ms"]).round(2)
    return found


@st.fragment
@state.shows_errors
def section(selection: state.Selection) -> None:
    """A button that measures, with progress, and what it found; kept for all sessions. A routed model is also pruned."""
    checkpoint = selection.checkpoint
    if set(layer_kinds(checkpoint.model)) == {"dense"}:
        st.caption("All layers are dense, so there is nothing to compare with.")
        return
    plans = {}
    if selection.is_routed:
        counts = dict.fromkeys(checkpoint.info.config.layers, min(PRUNED_TO, num_experts_of(checkpoint.model)))
        plans[f"pruned, {PRUNED_TO} a layer"] = first_experts(counts)
    names = "; ".join([DENSE, own_name(checkpoint), *plans])
    key = (checkpoint.fingerprint, *(plan.key() for plan in plans.values()))
    st.markdown(
        f"Times these models side by side, in float32: {escape(names)}. Batches of {listed(map(str, BATCHES))} "
        f"examples of up to {TOKENS} tokens, {REPEATS} timed calls each. Other load makes it noisy."
    )
    if st.button("Measure on this machine", key="measure-latency", icon=":material/timer:"):
        results(*_STORE).drop(key)
        once(*_STORE, key, "Timing", partial(measure, checkpoint, plans))
    if (times := results(*_STORE).get(key)) is None:
        return
    shown, threads = table(times), torch.get_num_threads()
    st.dataframe(shown, hide_index=True, width="content", alt="Latencies by model and batch")
    downloads(shown.assign(threads=threads, torch=torch.__version__), "latency", f"{selection.name}-latency")
    st.caption(f"{counted(threads, 'thread')}. Speed: dense median ÷ this model's, at the same batch size.")
