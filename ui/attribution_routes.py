"""The part of the attribution page that explains a route: why a layer takes one expert rather than another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from shrp.attribution.router import RoutesWithout
from shrp.errors import DataError
from shrp.explore import Exploration
from ui import expert_cells
from ui.attribution_results import Explained, routes_without
from ui.attribution_words import REPLACEMENTS, the
from ui.bound import fall_back
from ui.downloads import chart
from ui.text import escape, percent

ASPECT, LAYER, EXPERT, OTHER = "explain", "route_layer", "route_expert", "route_other"
"""Keys of the widgets, in the session's state and in the URL alike."""
ANSWER, ROUTE = "the answer", "a layer's route"
NAMED = 8
"""Words that a sentence names at most."""


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


def decisive_words(one: Explained, layer: int, replacement: str, name: str) -> None:
    """Which words alone decide where the input is routed, in every layer at once.

    Args:
        one: the input, with its answer to explain.
        layer: what the sentence is about.
        replacement: what stands for a word, of `shrp.attribution.tokens.REPLACEMENTS`.
        name: what downloads are called.

    Raises:
        DataError: as `shrp.attribution.router.routes_without`.
    """
    found = routes_without(one, replacement)
    words = [word.text for word in one.instance.words]
    st.subheader("Routes without a word", anchor="routes")
    by = the(next(label for label, value in REPLACEMENTS.items() if value == replacement))
    frame = pd.DataFrame(
        [
            {"place": place + 1, "word": word, "layer": row, "expert": own, "expert without it": new[place]}
            for row, own, new in zip(found.layers, found.own, found.without, strict=True)
            for place, word in enumerate(words)
        ]
    )
    said = _sentence(found, words, layer)
    chart(
        expert_cells.routes_without_words(found, words, by),
        frame,
        "routes-without",
        f"{name}-routes-without-words",
        f"Heatmap, layers by words: where a layer takes another expert without the word. {said}".replace(
            "*", ""
        ),
    )
    st.markdown(said)


def _sentence(found: RoutesWithout, words: Sequence[str], layer: int) -> str:
    """Which words decide the route in one layer."""
    row = found.layers.index(layer)
    own, without = int(found.own[row]), found.without[row]
    changed = np.flatnonzero(without != own)
    if not len(changed):
        return f"No word decides alone in layer {layer}: it takes expert {own} without any one of the {len(words):,}."
    named = ", ".join(f"without **{escape(words[i])}** expert {without[i]}" for i in changed[:NAMED])
    more = f" (and {len(changed) - NAMED:,} more words change it)" if len(changed) > NAMED else ""
    return (
        f"Layer {layer} takes {named}{more}, and expert {own} still without any one of the other "
        f"{len(words) - len(changed):,} words."
    )
