"""The two sides of the Compare page: what each is, picked by widgets that live in the URL, and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.batching import longest_input
from shrp.data.tasks import TASKS, TEXTS, Task
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, ShrpError
from shrp.evaluation.costs import TOKENS, Cost, cost, dense_cost, plan_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.model.convert import expert_layers, num_experts_of
from shrp.pruning.plan import PruningPlan, edits_of
from ui import arrival, loaders, measurements, not_here, state
from ui.bound import fall_back, restate
from ui.compare import plan as compare_plan
from ui.lab import controls as lab_controls
from ui.lab import edits as lab_edits
from ui.lab import work as lab
from ui.lab.edits import Editor
from ui.lab.reference import teacher_key, teacher_on, why_no_teacher
from ui.lab.sides import evaluated, model_key
from ui.lab.work import Setting
from ui.pickers import always_one
from ui.state import Selection
from ui.text import escape

SIDEBAR = "(the one in the sidebar)"
LETTERS = ("A", "B")
AS_IS, PRUNED, TEACHER = "As it is", "Pruned", "Dense teacher"
KINDS = (AS_IS, PRUNED, TEACHER)
LETTER_OF_PRUNING = "B"
"""The side that is a pruning at first, A being what it is held against."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What a person has picked for a side, checked: it can be evaluated."""

    name: str
    """The checkpoint's."""
    checkpoint: Checkpoint
    kind: str
    """One of `KINDS`."""
    setting: Setting | None = None
    """For a pruning."""
    editor: Editor | None = None
    """For a pruning: changes to what the setting gives."""

    @property
    def text(self) -> str:
        """What the side is, in words."""
        if self.kind == TEACHER:
            return f"dense teacher of {self.name}"
        return self.name if self.setting is None else f"{self.name} pruned ({self.setting.text})"

    @property
    def routes(self) -> bool:
        """Whether the side has routers whose choices can be looked at."""
        return self.kind == AS_IS and state.is_routed(self.checkpoint.info)


@dataclass(frozen=True, eq=False)
class Side:
    """A side with all that was measured of it."""

    choice: Choice
    key: str
    """The same for the same model, on either side and on every page."""
    evaluation: Evaluation
    cost: Cost
    dense: Cost
    """Of the same architecture with every layer dense: the denominator of its shares."""
    read: Checkpoint
    """The choice's, with inputs cut where they were for the comparison."""
    plan: PruningPlan | None = None
    """What a pruned side keeps; None for one that routes, or has no experts."""


def key_of(letter: str, what: str = "") -> str:
    """The key of a side's widget, in the session and in the URL: `a` is A's checkpoint, `a_is` what is made of it."""
    return f"{letter.lower()}_{what}" if what else letter.lower()


def pick(letter: str, selection: Selection, start: tuple[str, str]) -> Choice | None:
    """Draw a side's controls; returns what they say, or None where that can't be compared, and says why.

    Args:
        letter: `A` or `B`.
        start: checkpoint (one of the options) and kind that the side has until a person picks.
    """
    found = loaders.discover_all()
    _follow(letter, start)
    name = _checkpoint(letter, found, selection, start[0])
    info, task = found.get(name), selection.checkpoint.info.task
    unrouted = isinstance(info, CheckpointInfo) and not state.is_routed(info)  # nothing to prune by
    kinds = (AS_IS, TEACHER) if unrouted else KINDS
    kind = always_one(
        f"{letter}: version",
        kinds,
        key_of(letter, "is"),
        start[1] if start[1] in kinds else AS_IS,
        "As it is; pruned to fewer experts, without routers, where it has some; or its dense teacher, if the "
        "checkpoint holds the teacher's outputs on these data.",
    )
    try:
        if isinstance(info, CheckpointError):
            raise CheckpointError(
                str(info)
            )  # (the found one is kept for all, with whatever it is raised through)
        if problem := refusal(name, info, task, selection.name):
            st.warning(problem, icon=":material/block:")
            return None
        checkpoint = selection.with_teacher(loaders.load_checkpoint(name))
    except CheckpointError as error:
        st.error(f"**{escape(name)}** can't be loaded: {escape(str(error))}", icon=":material/error:")
        return None
    if kind == TEACHER and teacher_on(checkpoint, selection.data) is None:
        why = why_no_teacher(checkpoint, selection.whole or selection.data)
        st.warning(
            f"The dense teacher of **{escape(name)}** can't be compared on these data: {escape(why)}. Pick other data "
            "in the sidebar, or the teacher's own checkpoint where you have it.",
            icon=":material/school:",
        )
        return None
    if kind != PRUNED:
        return Choice(name, checkpoint, kind)
    model = checkpoint.model
    setting = lab_controls.controls(len(expert_layers(model)), num_experts_of(model), f"{key_of(letter)}_")
    picker = state.CHECKPOINT if st.session_state.get(key_of(letter)) == SIDEBAR else key_of(letter)
    return Choice(name, checkpoint, kind, setting, compare_plan.editor(letter, checkpoint, picker))


def offer(setting: Setting, plan: PruningPlan, *, held_out: bool) -> None:
    """On the pruning lab: a link to Compare with the lab's setting, and the edits that hold there, on side B.

    Args:
        plan: of the setting.
        held_out: whether its experts were chosen on half of the data, which Compare does not do: the link then has the
            whole plan.
    """
    edits = edits_of(plan) if held_out else setting.edits
    if not compare_plan.fits_a_link(edits):
        st.caption(
            ":material/info: This plan is too long for a link to *Compare*: save it and load it there."
        )
        return
    number = lab_controls.BUDGET if setting.allocation == lab.GLOBAL else lab_controls.EACH
    values = {
        "": SIDEBAR,
        "is": PRUNED,
        lab_controls.ALLOCATION: setting.allocation,
        number: setting.number,
        lab_controls.SELECTION: setting.selection,
        lab_controls.COMBINATION: setting.combination,
    }
    if lab.SELECTIONS[setting.selection] == "random":
        values[lab_controls.SEED] = setting.seed
    arrival.page_link(
        "pages/compare.py",
        "Hold this pruning against another checkpoint: Compare",
        ":material/compare_arrows:",
        arrival.link({key_of(LETTER_OF_PRUNING, key): value for key, value in values.items()})
        | {key_of(LETTER_OF_PRUNING, compare_plan.PLAN): compare_plan.link_of(edits)},
    )


def arrive() -> None:
    """Set side B to what a link from the pruning lab asks for; call before the controls are drawn."""
    texts = ("", "is", lab_controls.ALLOCATION, lab_controls.SELECTION, lab_controls.COMBINATION)
    numbers = (lab_controls.BUDGET, lab_controls.EACH, lab_controls.SEED)
    kinds = dict.fromkeys(texts, str) | dict.fromkeys(numbers, int)
    arrival.arrive({key_of(LETTER_OF_PRUNING, key): kind for key, kind in kinds.items()})


def refusal(name: str, info: CheckpointInfo, task: Task, picked: str) -> str:
    """Why a checkpoint can't be compared on data of `task`, as Markdown; empty where it can.

    Args:
        picked: the sidebar's checkpoint, whose task the data are of.
    """
    other = info.task
    # Of GLUE's tasks two may have the same classes; one's own are named after files, and two files may be of one.
    names = {task.name, other.name}
    if TEXTS.name in names:
        whose = escape(name if other.name == TEXTS.name else picked)
        return (
            f"**{whose}** was converted on texts and has no task yet: nothing has trained its head, so there are no "
            "answers to compare. `python -m shrp train --converted` gives it a task."
        )
    named_apart = len(names) == 2 and names <= set(TASKS)
    if other.reads_as(task) and not named_apart:
        return ""
    labels = "" if named_apart else " with other classes or texts"
    return (
        f"**{escape(name)}** is for the task {escape(other.name)}{labels}, **{escape(picked)}** in the sidebar and its "
        f"data are for {escape(task.name)}. Two models can be compared on one task only: pick a checkpoint of "
        f"{escape(task.name)} here, or one of {escape(other.name)} in the sidebar and on both sides."
    )


def read_alike(choices: Sequence[Choice], data: TextData) -> tuple[int | None, str]:
    """Tokens at which both sides cut inputs, the later of their two lengths, or a difference might be the cut's; None
    where each may cut as it does. And what to say of it, empty where nothing is cut.

    A dense teacher's outputs came with a checkpoint, and stay as they are.
    """
    checkpoints = [choice.checkpoint for choice in choices]
    own = [longest_input(one.model, one.tokenizer, one.info.max_length) for one in checkpoints]
    most = max(own)
    # One may have no more positions than it reads by itself.
    alike = [longest_input(one.model, one.tokenizer, most) for one in checkpoints]
    longest = max(int(measurements.token_lengths(one, data).max(initial=0)) for one in checkpoints)
    if len(set(own)) == 1 or longest <= min(own):
        return None, ""
    of_teacher = any(choice.kind == TEACHER for choice in choices)
    if of_teacher or len(set(alike)) > 1:
        reads = own if of_teacher else alike
        return None if of_teacher else most, (
            f"One side cuts inputs at {min(reads)} tokens, the other one at {max(reads)}: of longer ones part of the "
            "difference may be the cut's."
        )
    return most, f"Both sides read {alike[0]} tokens of an input, the longer of their two lengths."


def _reading(checkpoint: Checkpoint, tokens: int | None) -> Checkpoint:
    """The checkpoint with inputs cut elsewhere, its fingerprint another one: what was measured at its own length is
    not its.
    """
    if tokens in (None, checkpoint.info.max_length):
        return checkpoint
    info = replace(checkpoint.info, reads=tokens)
    return replace(checkpoint, info=info, fingerprint=f"{checkpoint.fingerprint}-at-{tokens}")


def measure(choice: Choice, data: TextData, tokens: int | None = None) -> Side:
    """Evaluate a side on the data, with progress where that was not done before by anyone.

    Args:
        tokens: at which inputs are cut; None for where the checkpoint cuts them, as a pruning's choice of experts does
            in any case.

    Raises:
        ShrpError: it can't be evaluated, in one sentence.
    """
    checkpoint, dense = choice.checkpoint, dense_cost(choice.checkpoint.model, TOKENS)
    read = _reading(checkpoint, tokens)
    if choice.kind == TEACHER:
        return Side(choice, teacher_key(checkpoint, data), teacher_on(checkpoint, data), dense, dense, read)
    if choice.setting is None:
        found = measurements.evaluation(read, data)
        plan = checkpoint.info.plan
        return Side(choice, model_key(read), found, cost(checkpoint.model, TOKENS), dense, read, plan)
    stats = lab.usage_for(choice.setting.selection, checkpoint, data)
    setting, plan, _ = lab_edits.edited(choice.setting, choice.editor.edits, stats, choice.editor)
    choice = replace(choice, setting=setting)
    found = evaluated(read, data, plan, "Evaluating the pruning:")
    price = plan_cost(checkpoint.model, plan, TOKENS)
    return Side(choice, model_key(read, plan), found, price, dense, read, plan)


def starts(selection: Selection) -> tuple[tuple[str, str], tuple[str, str]]:
    """What A and B are at first: the sidebar's checkpoint, and what is most like a question about it."""
    first = (SIDEBAR, AS_IS)
    if selection.is_routed:
        return first, (SIDEBAR, PRUNED)
    if teacher_on(selection.checkpoint, selection.data) is not None:
        return first, (SIDEBAR, TEACHER)
    for name, info in loaders.discover_all().items():
        fits = isinstance(info, CheckpointInfo) and not refusal(
            name, info, selection.checkpoint.info.task, selection.name
        )
        if fits and name != selection.name:
            return first, (name, AS_IS)
    return first, first


def _follow(letter: str, start: tuple[str, str]) -> None:
    """Bring a side that nobody has touched to its start, where another checkpoint in the sidebar has moved that."""
    keys, kept = (key_of(letter), key_of(letter, "is")), f"{letter}-start"
    before = st.session_state.get(kept, start)
    st.session_state[kept] = start
    now = tuple(st.session_state.get(key, value) for key, value in zip(keys, before, strict=True))
    if start != before and now == before:
        st.session_state.update(zip(keys, start, strict=True))


def _checkpoint(letter: str, found: dict[str, object], selection: Selection, start: str) -> str:
    """The name of a side's checkpoint, from all that there are."""
    key, options = key_of(letter), [SIDEBAR, *found]
    asked = not_here.asked_for(key, options)
    before, gone = st.session_state.get(key), f"{key}-gone"
    if fall_back(key, options, SIDEBAR):  # it was removed, or let go for newer ones
        st.session_state[gone] = before
    restate(key, start)
    picked = st.selectbox(
        f"{letter}: checkpoint",
        options,
        options.index(start),
        key=key,
        bind="query-params",
        help="Both sides must read as many texts and give the same classes as the sidebar's checkpoint, whose data "
        "they are compared on. Their tokenizers and bases may differ.",
    )
    if picked != SIDEBAR or st.session_state.get(gone) in options:
        st.session_state.pop(gone, None)
    if gone in st.session_state:
        st.caption(
            f":material/info: **{escape(st.session_state[gone])}** is not here any more; the sidebar's checkpoint "
            "stands in its place."
        )
    not_here.note(f"checkpoint of side {letter}", key, asked, picked)
    return selection.name if picked == SIDEBAR or picked not in found else picked


def measured(choice: Choice, data: TextData, tokens: int | None = None) -> Side | None:
    """`measure`, with an error in words in the place of the result."""
    try:
        return measure(choice, data, tokens)
    except ShrpError as error:
        state.show_error(error)
        return None
