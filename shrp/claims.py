"""What the paper reports, beside what was measured here in the same setting."""

from __future__ import annotations

import pandas as pd

from shrp.findings import Contest, contest
from shrp.phrases import with_ends
from shrp.published import PUBLISHED

OWN = "SHRP, "
"""What the names of the paper's own points begin with."""


def claims(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each of the paper's claims and each recipe that was measured at that depth.

    Args:
        frame: `shrp.studies.glue_frame` of the GLUE table.

    Returns:
        Columns converted, reported, recipe, measured (the best static model's retained share with its interval),
        size (its encoder parameters), best control (with its share, and those that lack a task), over (the tasks).
    """
    rows = []
    for claim in (one for one in PUBLISHED if one.name.startswith(OWN)):
        converted = claim.name.removeprefix(OWN)
        depth = converted.removesuffix(" layers").replace(" of ", "of")
        for recipe, part in frame[frame["depth"] == depth].groupby("recipe", sort=True):
            found = contest(part)
            if found is None:
                continue
            best = found.best
            rows.append(
                {
                    "converted": converted,
                    "reported": claim.denominator,
                    "recipe": recipe,
                    "measured": with_ends(best["retained"], best["low"], best["high"]),
                    "size": best["encoder_params"],
                    "best control": _control(found),
                    "over": best["tasks"],
                }
            )
    return pd.DataFrame(rows)


def _control(found: Contest) -> str:
    rival, on_all = found.rival, " on all" if ", " in found.best["tasks"] else ""
    if rival is None:
        return f"none measured{on_all}"
    text = f"{found.rival_name}: {with_ends(rival['retained'], rival['low'], rival['high'])}"
    return f"{text}; not measured{on_all}: {found.lacking}" if found.lacking else text
