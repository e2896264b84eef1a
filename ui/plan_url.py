"""Edits of a plan as a short text for the address of a page, and back.

A part per layer, joined by `_`: the layer, then what was changed of `n` (its count), `p` (pinned), `d` (dropped) and `w`
(weights from a file); last, for a plan from a file, `by-` and its selection. So `6n4p0.3_11d7` keeps 4 experts in layer 6,
among them 0 and 3, and never expert 7 of layer 11.
"""

from __future__ import annotations

import re

from shrp.errors import PlanError
from shrp.pruning.plan import SELECTIONS, LayerEdit, PlanEdits

URL = "plan"
"""The parameter's name."""
_BY = "by-"
LONGEST = 6000
"""Characters: what browsers and servers take in an address without cutting it."""

_LIST = r"\d{1,4}(?:\.\d{1,4})*"
_NUMBER = r"\d+(?:\.\d+)?(?:e-\d+)?"
_PART = re.compile(
    rf"(?P<layer>\d{{1,4}})(?:n(?P<count>\d{{1,4}}))?(?:p(?P<pinned>{_LIST}))?(?:d(?P<dropped>{_LIST}))?"
    rf"(?:w(?P<weights>{_NUMBER}(?:~{_NUMBER})*))?",
    re.ASCII,
)


def encode(edits: PlanEdits) -> str:
    """The edits as text; empty for none. `decode` gives the same edits back, weights to the last bit."""
    parts = [f"{layer}{_encode(edit)}" for layer, edit in edits.layers]
    return "_".join(parts + ([_BY + edits.origin.replace("_", "-")] if edits.origin else []))


def decode(text: str) -> PlanEdits:
    """Edits from any text; whether they fit a model is for `PlanEdits.check` to say.

    Raises:
        PlanError: the text is no plan's.
    """
    if len(text) > LONGEST:
        raise PlanError(f"the plan in the address is longer than {LONGEST:,} characters.")
    layers, parts, origin = [], text.split("_"), ""
    if len(parts) > 1 and parts[-1].startswith(_BY):
        origin = parts.pop().removeprefix(_BY).replace("-", "_")
        if origin not in SELECTIONS:
            raise PlanError(
                "the plan in the address does not say how it was selected; it looks like 6n1p0_by-random."
            )
    for part in parts:
        if (found := _PART.fullmatch(part)) is None:
            raise PlanError("the plan in the address can't be read; it looks like 6n4p0.3_11d7.")
        count = None if found["count"] is None else int(found["count"])
        weights = tuple(map(float, found["weights"].split("~"))) if found["weights"] else ()
        edit = LayerEdit(count, _indices(found["pinned"]), _indices(found["dropped"]), weights)
        layers.append((int(found["layer"]), edit))
    return PlanEdits(tuple(layers), origin)


def _encode(edit: LayerEdit) -> str:
    parts = [] if edit.count is None else [f"n{edit.count}"]
    for letter, experts in (("p", edit.pinned), ("d", edit.dropped)):
        if experts:
            parts.append(letter + ".".join(map(str, experts)))
    if edit.weights:
        parts.append("w" + "~".join(map(repr, edit.weights)))
    return "".join(parts)


def _indices(text: str | None) -> tuple[int, ...]:
    """Distinct experts, ascending."""
    return tuple(sorted({int(number) for number in text.split(".")})) if text else ()
