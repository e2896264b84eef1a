"""What two settings of the pruning lab can be picked from to be compared, and their place in the page's address."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.data.text_data import TextData
from shrp.errors import ShrpError
from shrp.evaluation.evaluation import Evaluation
from shrp.model.convert import expert_layers, num_experts_of
from shrp.pruning.plan import PruningPlan
from ui.bound import fall_back, set_param
from ui.lab import edits as lab_edits
from ui.lab import plan_url as lab_plan_url
from ui.lab import setting_url as lab_setting_url
from ui.lab import work as lab
from ui.lab.reference import ROUTED, TEACHER, teacher_key, teacher_on
from ui.lab.work import Setting
from ui.state import CHECKPOINT, Selection
from ui.text import capital, escape, metric_name, score_text

FIRST, SECOND = "compare_a", "compare_b"
"""Keys of the pickers, in the session's state and in the URL alike."""
CURRENT = "this plan"
_FIXED = {TEACHER: "teacher", ROUTED: "routed", CURRENT: "plan"}
"""Names in the URL of what is not a setting tried before."""


@dataclass(frozen=True, eq=False)
class Side:
    """One thing that can be compared."""

    label: str
    """As the picker shows it. What is shown of a picked option stays as it was when it was picked, so nothing that
    moves with the slider, the data or the checkpoint is in here."""
    now: str
    """What it is and scores now, where the label does not say so."""
    short: str
    """As sentences and tables name it."""
    key: str
    """The same for the same model on every page."""
    link: str
    """As the URL names it."""
    evaluation: Callable[[], Evaluation]


def sides(
    selection: Selection,
    setting: Setting,
    plan: PruningPlan,
    pruned: Evaluation,
    routed: Evaluation,
    picked: Container[str | None] = (),
) -> dict[str, Side]:
    """What there is to compare, by a key that stays the same while the slider moves: latest tries first, random draws
    last.

    Args:
        picked: keys that stay although the slider has come to the same plan.
    """
    checkpoint, data = selection.checkpoint, selection.data
    metric = data.task.metric
    found = {}

    def add(name: str, what: str, key: str, evaluation: Evaluation) -> None:
        now = f"{what}{metric_name(metric)} {score_text(evaluation.score, metric)}"
        found[name] = Side(capital(name), now, name, key, _FIXED[name], lambda: evaluation)

    if (teacher := teacher_on(checkpoint, data)) is not None:
        add(TEACHER, "", teacher_key(checkpoint, data), teacher)
    add(ROUTED, "", model_key(checkpoint), routed)
    add(CURRENT, f"{setting.text}: ", model_key(checkpoint, plan), pruned)
    seen = set()
    attempts = reversed(lab.tried(checkpoint, data).values())
    # Random draws last: where one happens to be another setting's plan, it goes by that one's name.
    for attempt in sorted(attempts, key=lambda one: one.setting.is_control):
        if attempt.plan.key() in seen:
            continue
        seen.add(attempt.plan.key())
        if attempt.plan.key() == plan.key() and _name(plan) not in picked:
            continue
        name = attempt.setting.text
        found[_name(attempt.plan)] = Side(
            f"{name}: {metric_name(metric)} {score_text(attempt.score, metric)}",
            "",
            name,
            model_key(checkpoint, attempt.plan),
            lab_setting_url.encode(attempt.setting),
            lambda one=attempt.plan: evaluated(checkpoint, data, one, "Evaluating again:"),
        )
    return found


def model_key(checkpoint: Checkpoint, plan: PruningPlan | None = None) -> str:
    """What tells a checkpoint as it is, or its pruning by `plan`, from every other model."""
    return checkpoint.fingerprint if plan is None else f"{checkpoint.fingerprint} {plan.key()}"


def evaluated(checkpoint: Checkpoint, data: TextData, plan: PruningPlan, label: str) -> Evaluation:
    """A plan's exact evaluation: kept from when it was first made, or made now with a progress bar."""
    bar = st.empty()
    for evaluation in lab.stream(checkpoint, data, plan):
        if not evaluation.complete:
            text = f"{label} {evaluation.n:,} of {evaluation.total:,} inputs"
            bar.progress(evaluation.n / evaluation.total, text)
    bar.empty()
    return evaluation


def follow_link(key: str, selection: Selection, current: PruningPlan) -> None:
    """Before a picker is first drawn: pick what the URL names, trying its setting where this session has not yet."""
    link = st.query_params.get(key)
    if link is None or key in st.session_state:
        return
    if (name := next((name for name, fixed in _FIXED.items() if fixed == link), None)) is None:
        try:
            plan = _tried(link, selection)
        except ShrpError as error:
            st.caption(f":material/info: The setting in the address was left out: {escape(str(error))}")
            return
        name = CURRENT if plan.key() == current.key() else _name(plan)
    st.session_state[key] = name


def _tried(link: str, selection: Selection) -> PruningPlan:
    """The plan of a setting in the URL, evaluated and kept among those tried."""
    checkpoint, data = selection.checkpoint, selection.data
    wanted = lab_setting_url.decode(link)
    stats = lab.usage_for(wanted.selection, checkpoint, selection.ranking)
    layers = list(expert_layers(checkpoint.model))
    editor = lab_edits.editor(checkpoint.fingerprint, layers, num_experts_of(checkpoint.model), CHECKPOINT)
    setting, plan, _ = lab_edits.edited(wanted, wanted.edits, stats, editor)
    known = {attempt.plan.key() for attempt in lab.tried(checkpoint, data).values()}
    if plan.key() not in known:
        lab.keep(
            checkpoint, data, setting, plan, evaluated(checkpoint, data, plan, f"Evaluating {setting.text}:")
        )
    return plan


def pick(label: str, found: dict[str, Side], key: str, start: str) -> str:
    """Draw the picker of one side; returns the picked key of `found`, and puts it into the URL."""
    st.session_state.setdefault(key, start)
    fall_back(key, found, start)  # a setting of another checkpoint or data
    options = list(found)
    # Not bound: what stands in the URL would be the label, which is long.
    picked = st.selectbox(
        label, options, key=key, format_func=lambda name: found[name].label, persist_state="session"
    )
    if now := found[picked].now:
        st.caption(escape(now))
    link = found[picked].link
    set_param(key, link if picked != start and len(link) <= lab_plan_url.LONGEST else None)
    return picked


def _name(plan: PruningPlan) -> str:
    return f"plan {plan.key()}"
