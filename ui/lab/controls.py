"""The pruning lab's controls: what is kept and how; each in the URL, each checked again on the server."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.bound import clamp
from ui.lab.work import COMBINATIONS, FITTED, FITTED_WEIGHTS, GLOBAL, MAX_SEED, PER_LAYER, SELECTIONS, Setting
from ui.pickers import always_one

ALLOCATION, BUDGET, EACH, SELECTION, COMBINATION, SEED = (
    "keep",
    "budget",
    "per_layer",
    "select",
    "combine",
    "seed",
)


def controls(layers: int, experts: int, side: str = "") -> Setting:
    """Draw the controls for a model of `layers` converted layers with `experts` each; returns the setting.

    Args:
        side: what the widgets' keys begin with, for a page with several models side by side; the controls then stand
            below each other.
    """

    # Side by side as far as the window allows: what does not fit goes below, uncut.
    def row(**options: str) -> DeltaGenerator:
        return st.container() if side else st.container(horizontal=True, gap="medium", **options)

    with row(vertical_alignment="bottom"):
        allocation = always_one(
            "How many experts",
            (GLOBAL, PER_LAYER),
            side + ALLOCATION,
            help="A global budget gives every layer one expert and spreads the rest by usage. "
            "Per layer keeps the same number in each.",
        )
        if allocation == GLOBAL:
            number = _slider(
                f"Experts kept in all, of {layers * experts} in {layers} converted layers",
                layers,
                layers * experts,
                min(2 * layers, layers * experts),
                side + BUDGET,
            )
        else:
            number = _slider(
                f"Experts kept in each of the {layers} converted layers, of {experts}",
                1,
                experts,
                min(2, experts),
                side + EACH,
            )
    with row():
        selection = always_one(
            "Which experts",
            tuple(SELECTIONS),
            side + SELECTION,
            help="- **Usage**: the most used experts (the paper's choice), counted on the picked data "
            "(with a held-out half: on the half that is not scored).\n"
            "- **Recorded usage**: the same, counted on the training's validation data and stored in the checkpoint; "
            "`prune` and `export` on the command line use it.\n"
            "- **Gate × norm**: largest mean of gate (what an expert's output is multiplied by: 1 of a Top-1 choice, "
            "else 0) times output norm.\n"
            "- **Ablation**: those whose removal changes the answer most, each removed in turn for up to 512 inputs; "
            "the router then picks the next expert.\n"
            "- **Fitted**: constant gates, learned from texts alone, that make the pruned model answer like the routed "
            "one; the expert with the smallest gate is removed again and again.\n"
            "- **Random**: a control that a good selection must beat; usage still spreads a global budget over the "
            "layers, and still gives *Usage weights*.",
        )
        combination = FITTED_WEIGHTS
        if selection != FITTED:
            combination = always_one(
                "Combined by",
                tuple(COMBINATIONS),
                side + COMBINATION,
                help="Usage weights: each kept expert weighs as much as it was used. Plain mean: all weigh the same.",
            )
    seed = 0
    if SELECTIONS[selection] == "random":
        clamp(side + SEED, 0, MAX_SEED)
        value = st.number_input(
            "Seed of the draw",
            0,
            MAX_SEED,
            0,
            key=side + SEED,
            bind="query-params",
            width=160,
            help="Of the random control.",
        )
        seed = min(max(int(value or 0), 0), MAX_SEED)
        st.caption(
            ":material/casino: Random experts are a control: where another selection does no better, it does not "
            "show which experts matter."
        )
    if selection == FITTED:
        st.caption(
            ":material/tune: The fit gives the weights too, and spreads a budget over the layers. It looks at the "
            "inputs that choose (with a held-out half: those not scored) and at what the routed model says of them; "
            "their labels only mix the classes."
        )
    return Setting(allocation, number, selection, combination, seed)


def take(setting: Setting) -> None:
    """Set the controls; for a button's callback."""
    session = st.session_state
    session[ALLOCATION], session[SELECTION] = setting.allocation, setting.selection
    session[BUDGET if setting.allocation == GLOBAL else EACH] = setting.number
    if setting.combination in COMBINATIONS:
        session[COMBINATION] = setting.combination
    if SELECTIONS.get(setting.selection) == "random":
        session[SEED] = setting.seed


def _slider(label: str, low: int, high: int, start: int, key: str) -> int:
    if low == high:  # a slider needs two ends
        st.markdown(f"{label}: {low}")
        return low
    clamp(key, low, high)
    # The start is given in every run: the address leaves it out, and would leave out the least number in its place.
    return int(st.slider(label, low, high, start, key=key, bind="query-params"))
