"""What each recipe and depth keeps, beside its best control and what the paper reports in the same setting."""

from __future__ import annotations

import pandas as pd

from shrp.phrases import in_words, with_ends
from shrp.studies.findings import Contest, contests
from shrp.studies.published import PUBLISHED

OWN = "SHRP, "
"""What the names of the paper's own points begin with."""


def claims(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each recipe and depth that was measured, `retain` and few layers first.

    Args:
        frame: `shrp.studies.studies.glue_frame` of the GLUE table.

    Returns:
        Columns recipe, converted, measured (the best static model's retained share with its interval), size (its
        encoder parameters), best control (with its share), lead (SHRP's over it; empty without one),
        lacking (the controls that were not measured on all of the tasks, with what they keep; empty for none),
        reported (the paper's claim; None where it has none of this depth), over (the tasks).
    """
    reported = {one.name.removeprefix(OWN): one.denominator for one in PUBLISHED if one.name.startswith(OWN)}
    rows = []
    for found in contests(frame):
        best, converted = found.best, in_words(found.best["depth"])
        rows.append(
            {
                "recipe": best["recipe"],
                "converted": converted,
                "measured": with_ends(best["retained"], best["low"], best["high"]),
                "size": best["encoder_params"],
                "best control": _control(found),
                "lead": found.lead,
                "lacking": found.lacking,
                "reported": reported.get(converted),
                "over": best["tasks"],
            }
        )
    return pd.DataFrame(rows)


def _control(found: Contest) -> str:
    if (rival := found.rival) is None:
        return f"none measured{' on all' * (', ' in found.best['tasks'])}"
    return f"{found.rival_name}: {with_ends(rival['retained'], rival['low'], rival['high'])}"
