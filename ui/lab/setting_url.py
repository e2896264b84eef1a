"""A setting of the pruning lab as a short text for the page's address, and back.

How many experts are kept, in all or with `each` behind it in each layer; then, where it is not the usual, how they are
selected and combined; then edits by hand, as `ui.lab.plan_url` writes them. So `12`, `2each.random7.mean` and
`12.gate_norm-6n4p0.3`. All characters stand in an address as they are.
"""

from __future__ import annotations

import re
from dataclasses import replace

from shrp.errors import PlanError
from ui.lab import plan_url as lab_plan_url
from ui.lab.work import COMBINATIONS, GLOBAL, PER_LAYER, SELECTIONS, Setting

_TEXT = re.compile(
    r"(?P<number>\d{1,5})(?P<each>each)?"
    rf"(?:\.(?P<selection>{'|'.join(SELECTIONS.values())})(?P<seed>\d{{1,4}})?)?"
    rf"(?:\.(?P<combination>{'|'.join(COMBINATIONS.values())}))?(?:-(?P<edits>.+))?",
    re.ASCII,
)
_USUAL = Setting(GLOBAL, 0)


def encode(setting: Setting) -> str:
    """The setting as text; `decode` gives the same one back, but for the words about its edits."""
    text = f"{setting.number}{'each' if setting.allocation == PER_LAYER else ''}"
    if setting.selection != _USUAL.selection:
        kind = SELECTIONS[setting.selection]
        text += f".{kind}{setting.seed if kind == 'random' else ''}"
    if setting.combination in COMBINATIONS and setting.combination != _USUAL.combination:
        text += f".{COMBINATIONS[setting.combination]}"
    return text + (f"-{lab_plan_url.encode(setting.edits)}" if setting.edits else "")


def decode(text: str) -> Setting:
    """A setting from text, which may be anything; whether it fits a model shows when its plan is made.

    Raises:
        PlanError: the text is no setting's.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise PlanError("the setting in the address can't be read; it looks like 12 or 2each.random7.mean.")
    setting = Setting(
        PER_LAYER if found["each"] else GLOBAL,
        int(found["number"]),
        _label(SELECTIONS, found["selection"], _USUAL.selection),
        _label(COMBINATIONS, found["combination"], _USUAL.combination),
    )
    if found["selection"] == "random":
        setting = replace(setting, seed=int(found["seed"] or 0))
    return replace(setting, edits=lab_plan_url.decode(found["edits"])) if found["edits"] else setting


def _label(options: dict[str, str], value: str | None, usual: str) -> str:
    return next((label for label, one in options.items() if one == value), usual)
