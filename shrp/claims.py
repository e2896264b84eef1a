"""What the paper reports, beside what was measured here in the same setting."""

from __future__ import annotations

import pandas as pd

from shrp.published import PUBLISHED
from shrp.studies import CONTROLS, NAMES, with_ends

OWN = "SHRP, "
"""What the names of the paper's own points begin with."""


def claims(mean: pd.DataFrame) -> pd.DataFrame:
    """One row for each of the paper's claims and each recipe that was measured at that depth.

    Args:
        mean: `shrp.studies.average` of the GLUE table.

    Returns:
        Columns converted, reported, recipe, measured (the best static model's retained share with its interval),
        size (its encoder parameters), best control (with its share, and those that lack a task), over (the tasks).
    """
    rows = []
    for claim in (one for one in PUBLISHED if one.name.startswith(OWN)):
        converted = claim.name.removeprefix(OWN)
        depth = converted.removesuffix(" layers").replace(" of ", "of")
        for recipe, found in mean[mean["depth"] == depth].groupby("recipe", sort=True):
            static = found[found["model"] == "static"]
            if static.empty:
                continue
            best = static.loc[static["retained"].idxmax()]
            # A control that lacks tasks would be compared over others.
            known = found[found["model"].isin(CONTROLS)]
            controls = known[known["tasks"] == best["tasks"]]
            lacking = [m for m in CONTROLS if m in set(known["model"]) - set(controls["model"])]
            rows.append(
                {
                    "converted": converted,
                    "reported": claim.denominator,
                    "recipe": recipe,
                    "measured": with_ends(best["retained"], best["low"], best["high"]),
                    "size": best["encoder_params"],
                    "best control": _control(controls, lacking),
                    "over": best["tasks"],
                }
            )
    return pd.DataFrame(rows)


def _control(controls: pd.DataFrame, lacking: list[str]) -> str:
    missing = " and ".join(NAMES[model].removeprefix("control: ") for model in lacking)
    if controls.empty:
        return f"none measured on all of these ({missing} on some)" if missing else "none measured"
    best = controls.loc[controls["retained"].idxmax()]
    name = best["name"].removeprefix("control: ")
    text = f"{name}: {with_ends(best['retained'], best['low'], best['high'])}"
    return f"{text}; not measured on all: {missing}" if missing else text
