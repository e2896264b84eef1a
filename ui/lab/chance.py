"""Whether a selection of experts is better than chance, from what the lab has tried at each number a layer."""

from __future__ import annotations

import pandas as pd

from ui.lab.work import COMBINATIONS, PER_LAYER
from ui.text import metric_name, points


def against_chance(tried: pd.DataFrame, metric: str) -> list[str]:
    """A sentence for each selection and combination: at how many numbers of experts a layer it is above random draws.

    Args:
        tried: `ui.lab.work.attempts_frame`; numbers at which no random experts were tried are passed over, and so is
            what was edited by hand.
    """
    if tried.empty:
        return []
    known = tried[(tried["allocation"] == PER_LAYER) & ~tried["edited"] & tried["score"].notna()]
    random = known[known["control"]].drop_duplicates(["experts kept", "seed", "combination"])
    sentences = []
    for (selection, combination), rows in known[~known["control"]].groupby(
        ["selection", "combination"], sort=False
    ):
        # Random draws have no fitted weights; they are combined by usage beside them, as a sweep makes them.
        like = combination if combination in COMBINATIONS else next(iter(COMBINATIONS))
        drawn = random[random["combination"] == like].groupby("experts kept")["score"]
        mean, highest, draws = drawn.mean(), drawn.max(), drawn.size()
        own = rows.drop_duplicates("experts kept", keep="last").set_index("experts kept")["score"]
        sizes = own.index.intersection(mean.index)
        if sizes.empty:
            continue
        ahead = own[sizes] - mean[sizes]
        fewest, most = draws[sizes].min(), draws[sizes].max()
        counted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        sentences.append(
            f"Against chance: {selection.lower()} ({combination.lower()}) is above the mean of {counted} random "
            f"{'draw' if most == 1 else 'draws'} ({like.lower()}) at {(ahead > 0).sum()} of {len(sizes)} numbers of "
            f"experts a layer (mean lead, {metric_name(metric)}: {points(ahead.mean(), metric)}), and above the best "
            f"draw at {(own[sizes] > highest[sizes]).sum()}. Sizes share their inputs, so they are not independent, "
            "and there is no interval here: Compare pairs two of them."
        )
    return sentences
