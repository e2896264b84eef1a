"""The part of the attribution page that explains a route: why a layer takes one expert rather than another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from shrp.analysis.attribution.instance import Word
from shrp.analysis.attribution.tokens import RoutesWithout
from shrp.analysis.explore import Exploration
from shrp.data.tasks import Task
from shrp.errors import DataError
from ui import expert_cells
from ui.attribution.results import Explained, routes_without
from ui.attribution.words import named, replaced_by
from ui.bound import fall_back
from ui.downloads import chart
from ui.pickers import always_one
from ui.text import percent, plain

ASPECT, LAYER, EXPERT, OTHER = "explain", "route_layer", "route_expert", "route_other"
"""Keys of the widgets, in the session's state and in the URL alike."""
ANSWER, ROUTE = "the answer", "a layer's route"
NAMED = 8
"""Words that a sentence names at most."""


def explains_a_route() -> bool:
    """The control for what is explained; whether it is a route."""
    picked = always_one(
        "Explain",
        (ANSWER, ROUTE),
        ASPECT,
        help="**the answer**: what the output is due to. **a layer's route**: which words make a router take its "
        "expert, and not another one.",
    )
    return picked == ROUTE


def pick_preference(one: Explained, routed: Exploration) -> tuple[Explained, str]:
    """The controls for the layer and the two experts; returns what is explained and what it is called, as plain text.

    Raises:
        DataError: both experts are the same, or there is but one.
    """
    layers, experts = routed.layers, range(len(routed.mean_probs(routed.layers[0])))
    moved = fall_back(LAYER, (*layers, None), layers[-1])
    for key in (EXPERT, OTHER):
        fall_back(key, (*experts, None), None)
    left, middle, right, _ = st.columns([1, 1.4, 1.4, 2], gap="medium", vertical_alignment="bottom")
    layer = left.selectbox("Layer", layers, 0 if moved else len(layers) - 1, key=LAYER, bind="query-params")
    layer = layer if layer in layers else layers[-1]
    if len(experts) == 1:
        raise DataError(f"Layer {layer} has one expert, so its router has nothing to prefer.")
    choice = routed.choice(layer)
    picked = middle.selectbox(
        "Why expert",
        experts,
        None,
        key=EXPERT,
        bind="query-params",
        placeholder=f"{choice}, which it takes",
        help="The expert that positive words draw the input to; what the layer takes, unless you pick another one.",
    )
    expert = picked if picked in experts else choice
    rival = routed.runner_up(layer, expert)
    other = right.selectbox(
        "Rather than",
        experts,
        None,
        key=OTHER,
        bind="query-params",
        placeholder=f"{rival}, its best rival",
        help="The expert that negative words draw it to; the likeliest other one, unless you pick one. Where several "
        "fire together, the likeliest that does not fire beside it.",
    )
    other = other if other in experts else rival
    if other == expert and picked is None:  # picked when the layer was another one, which took another expert
        other = rival
    if other == expert:
        raise DataError(f"Expert {expert} can't be preferred to itself; pick another one beside it.")
    st.caption(_told(routed, layer, expert, other))
    what = f"layer {layer}'s log-odds of expert {expert} over expert {other}"
    return one.preferring(layer, expert, other), what


def _told(routed: Exploration, layer: int, expert: int, other: int) -> str:
    probs, choice = routed.mean_probs(layer), routed.choice(layer)
    first, second = percent(float(probs[expert])), percent(float(probs[other]))
    several = int(routed.fires(layer).sum(1).max())
    if routed.by_token:
        takes = f"In layer {layer} most tokens take expert {choice}"
    elif several > 1:
        takes = f"Layer {layer} takes {several} experts, expert {choice} with the largest gate"
    else:
        takes = f"Layer {layer} takes expert {choice}"
    mean = ", mean over tokens" if routed.by_token else ""
    odds = "the natural logarithm of the one divided by the other"
    odds = f"the mean over tokens (special ones too) of {odds}" if routed.by_token else odds
    above = "the mean favours" if routed.by_token else "the router prefers"
    return (
        f"{takes}. Router probabilities{mean}: expert {expert} **{first}**, expert {other} **{second}**. Explained is "
        f"{odds}, which is a difference of two router logits: above 0 {above} expert {expert}."
    )


def decisive_words(one: Explained, layer: int, replacement: str, name: str) -> None:
    """Which words alone decide where the input is routed, in every layer at once.

    Args:
        one: the input, with its answer to explain.
        layer: what the sentence is about.
        replacement: what stands for a word, of `shrp.analysis.attribution.tokens.REPLACEMENTS`.
        name: what downloads are called.

    Raises:
        DataError: as `shrp.analysis.attribution.tokens.routes_without`.
    """
    st.header(f"Which {one.instance.unit}s decide a route", anchor="routes")
    found = routes_without(one, replacement)
    words, unit = one.instance.words, one.instance.unit
    frame = pd.DataFrame(
        [
            {
                "place": place + 1,
                "text": word.part + 1,
                unit: word.text,
                "layer": row,
                "expert": own,
                "expert without it": new[place],
            }
            for row, own, new in zip(found.layers, found.own, found.without, strict=True)
            for place, word in enumerate(words)
        ]
    )
    said = _sentence(found, words, layer, one.instance.task, unit)
    chart(
        expert_cells.routes_without_words(found, words, replaced_by(replacement), unit),
        frame,
        "routes-without",
        f"{name}-routes-without-words",
        f"Heatmap, layers by {unit}s: where a layer takes another expert without the {unit}. {plain(said)}",
    )
    st.markdown(said)


def _sentence(found: RoutesWithout, words: Sequence[Word], layer: int, task: Task, unit: str = "word") -> str:
    """Which words, or longer pieces of the input, decide the route in one layer."""
    row = found.layers.index(layer)
    own, without = int(found.own[row]), found.without[row]
    changed = np.flatnonzero(without != own)
    first = f"the expert with the largest gate in layer {layer} is" * (found.top_k > 1)
    if not len(changed):
        still = f"{first} still expert {own}" if first else f"layer {layer} still takes expert {own}"
        return f"No {unit} decides alone: without any one of them {still}."
    longest = {} if unit == "word" else {"longest": 60}
    listed = ", ".join(
        named(words, i, task, f"then expert {without[i]}", **longest) for i in changed[:NAMED].tolist()
    )
    more = f" and {len(changed) - NAMED:,} more" if len(changed) > NAMED else ""
    another = f"{first} another one" if first else f"layer {layer} takes another expert"
    rest = f"Without any other {unit} it {'is still' if first else 'still takes'} expert {own}."
    if len(changed) == len(words):
        rest = f"That is every {unit} of the input."
    return f"{unit.capitalize()}s without which {another} than {own}: {listed}{more}. {rest}"
