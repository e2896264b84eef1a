"""Edits of a plan as a short text for the address of a page, and back.

A part per layer, joined by `_`: the layer, then what was changed of `n` (its count), `p` (pinned) and `d` (dropped). So
`6n4p0.3_11d7` keeps 4 experts in layer 6, among them 0 and 3, and never expert 7 of layer 11.
"""

from __future__ import annotations

import re

from shrp.errors import PlanError
from shrp.pruning.plan import LayerEdit, PlanEdits

URL = "plan"
"""The parameter's name."""
LONGEST = 6000
"""Characters: what browsers and servers take in an address without cutting it."""

_LIST = r"\d{1,4}(?:\.\d{1,4})*"
_PART = re.compile(
    rf"(?P<layer>\d{{1,4}})(?:n(?P<count>\d{{1,4}}))?(?:p(?P<pinned>{_LIST}))?(?:d(?P<dropped>{_LIST}))?",
    re.ASCII,
)


def encode(edits: PlanEdits) -> str:
    """The edits as text; empty for none. `decode` gives the same edits back."""
    return "_".join(f"{layer}{_encode(edit)}" for layer, edit in edits.layers)


def decode(text: str) -> PlanEdits:
    """Edits from any text; whether they fit a model is for `PlanEdits.check` to say; a `PlanError` if the text is no plan's."""
    if len(text) > LONGEST:
        raise PlanError(f"the plan in the address is longer than {LONGEST:,} characters.")
    layers: dict[int, LayerEdit] = {}
    for part in text.split("_"):
        if (found := _PART.fullmatch(part)) is None or int(found["layer"]) in layers:
            raise PlanError("the plan in the address can't be read; one is written like 6n4p0.3_11d7.")
        count = None if found["count"] is None else int(found["count"])
        layers[int(found["layer"])] = LayerEdit(count, _indices(found["pinned"]), _indices(found["dropped"]))
    return PlanEdits(tuple(layers.items()))


def _encode(edit: LayerEdit) -> str:
    parts = [] if edit.count is None else [f"n{edit.count}"]
    for letter, experts in (("p", edit.pinned), ("d", edit.dropped)):
        if experts:
            parts.append(letter + ".".join(map(str, experts)))
    return "".join(parts)


def _indices(text: str | None) -> tuple[int, ...]:
    """Distinct experts, ascending."""
    return tuple(sorted({int(number) for number in text.split(".")})) if text else ()
