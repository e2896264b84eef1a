"""The experts whose outputs are the most like those of one expert."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from ui.downloads import downloads
from ui.expert import results as made
from ui.text import escape


def nearest(checkpoint: Checkpoint, data: TextData, layer: int, expert: int, name: str) -> None:
    """Two small tables: within the layer by cosine, in the other layers by linear CKA. Raises as `sample_outputs`."""
    sample, within, across = made.nearest(checkpoint, data, layer, expert)
    st.markdown(
        f"**Nearest experts** by similarity of outputs, on {sample.n:,} tokens (special ones left out) of "
        f"{sample.n_inputs:,} of the {len(data):,} inputs of {escape(data.name)}"
    )
    one, two = st.columns(2, gap="large")
    with one:
        st.markdown(f"In layer {layer}, by mean cosine over tokens (−1 to 1)")
        _table(within, "cosine", "This layer has no other expert.")
        st.caption(
            "95% intervals over inputs. Experts of a layer feed the same Expander, so their outputs share its "
            "coordinates. In another layer the same coordinate means something else, although heads are as wide: a "
            "cosine across layers would say nothing."
        )
    with two:
        st.markdown("In other layers, by linear CKA (0 unrelated, 1 alike)")
        _table(across, "cka", "There is no other converted layer, or too little to compare with.")
        st.caption(
            "Kornblith et al. 2019, debiased: whether two experts' outputs vary alike over tokens, whatever their "
            "coordinates. 95% intervals by a jackknife over inputs; the nearest of many look nearer than they are."
        )
    downloads(
        pd.concat([within.assign(layer=layer, measure="cosine"), across.assign(measure="cka")]),
        "nearest",
        f"{name}-nearest",
    )


def _table(frame: pd.DataFrame, measure: str, nothing: str) -> None:
    if frame.empty:
        st.caption(nothing)
        return
    shown = pd.DataFrame(
        {
            **{column: frame[column] for column in ("layer", "expert") if column in frame},
            measure.upper() if measure == "cka" else measure: frame[measure].map("{:.3f}".format),
            "95% interval": [
                "not known" if low != low else f"{low:.3f} to {high:.3f}".replace("-", "−")
                for low, high in zip(frame["low"], frame["high"])
            ],
        }
    )
    name = "linear CKA" if measure == "cka" else measure
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        height="content",
        alt=f"Nearest experts by {name}, with 95% intervals",
    )
