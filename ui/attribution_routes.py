"""The part of the attribution page that explains a route: why a layer takes one expert rather than another."""

from __future__ import annotations

import numpy as np
import streamlit as st

from shrp.errors import DataError
from shrp.explore import Exploration
from ui.attribution_results import Explained
from ui.bound import fall_back
from ui.text import percent

ASPECT, LAYER, EXPERT, OTHER = "explain", "route_layer", "route_expert", "route_other"
"""Keys of the widgets, in the session's state and in the URL alike."""
ANSWER, ROUTE = "the answer", "a layer's route"


def explains_a_route() -> bool:
    """The control for what is explained; whether it is a route."""
    picked = st.segmented_control(
        "Explain",
        (ANSWER, ROUTE),
        default=ANSWER,
        required=True,
        key=ASPECT,
        bind="query-params",
        help="**the answer**: what the output is due to. **a layer's route**: which words make a router take its "
        "expert, and not another one.",
    )
    return picked == ROUTE


def pick_preference(one: Explained, routed: Exploration) -> tuple[Explained, str]:
    """The controls for the layer and the two experts; returns what is explained and what it is called, as plain text.

    Raises:
        DataError: both experts are the same.
    """
    layers, experts = routed.layers, range(len(routed.mean_probs(routed.layers[0])))
    for key, options in ((LAYER, layers), (EXPERT, experts), (OTHER, experts)):
        fall_back(key, (None, *options) if key != LAYER else options)
    left, middle, right, _ = st.columns([1, 1.4, 1.4, 2], gap="medium", vertical_alignment="bottom")
    layer = left.selectbox("Layer", layers, len(layers) - 1, key=LAYER, bind="query-params")
    layer = layer if layer in layers else layers[-1]
    choice = routed.choice(layer)
    expert = middle.selectbox(
        "Why expert",
        experts,
        None,
        key=EXPERT,
        bind="query-params",
        placeholder=f"{choice}, which it takes",
        help="The expert that positive words draw the input to; what the layer takes, unless you pick another one.",
    )
    expert = expert if expert in experts else choice
    best = _best_other(routed, layer, expert)
    other = right.selectbox(
        "Rather than",
        experts,
        None,
        key=OTHER,
        bind="query-params",
        placeholder=f"{best}, its best rival",
        help="The expert that negative words draw it to; the likeliest that does not fire, unless you pick another.",
    )
    other = other if other in experts else best
    if other == expert:
        raise DataError(f"Expert {expert} can't be preferred to itself; pick another one beside it.")
    st.caption(_told(routed, layer, expert, other))
    what = f"layer {layer}'s log-odds of expert {expert} over expert {other}"
    return one.preferring(layer, expert, other), what


def _best_other(routed: Exploration, layer: int, expert: int) -> int:
    """The likeliest expert beside the one; of those that do not fire, if any."""
    probs = routed.mean_probs(layer).copy()
    probs[expert] = -1
    idle = np.flatnonzero(~routed.fires(layer).any(0))
    rivals = idle[idle != expert]
    return int(rivals[probs[rivals].argmax()]) if len(rivals) else int(probs.argmax())


def _told(routed: Exploration, layer: int, expert: int, other: int) -> str:
    probs, mean = routed.mean_probs(layer), ", mean over tokens" if routed.by_token else ""
    who = "most tokens take" if routed.by_token else "takes"
    first, second = percent(float(probs[expert])), percent(float(probs[other]))
    return (
        f"Layer {layer} {who} expert {routed.choice(layer)}. Router probabilities{mean}: expert {expert} **{first}**, "
        f"expert {other} **{second}**. Explained is the natural logarithm of the one divided by the other{mean}, a "
        f"difference of two router logits: above 0 the router prefers expert {expert}."
    )
