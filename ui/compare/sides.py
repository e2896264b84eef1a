"""The models of the Compare page: what each is, picked by widgets that live in the URL, and its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

from shrp.checkpoints import reference
from shrp.checkpoints.checkpoint import Checkpoint
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.batching import longest_input
from shrp.data.tasks import TASKS, TEXTS, Task
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, PlanError
from shrp.evaluation.costs import TOKENS, Cost, cost, dense_cost
from shrp.evaluation.evaluation import Evaluation
from shrp.model.convert import expert_layers, num_experts_of
from shrp.phrases import numbered
from shrp.pruning.plan import NO_EDITS, PlanEdits
from ui import loaders, measurements, not_here, plan_url, prunings, state
from ui.bound import fall_back, restate
from ui.describe import kind_of
from ui.measurements import teacher_key, teacher_on, why_no_teacher
from ui.prunings import PRUNED, Setting
from ui.state import Selection
from ui.text import escape

LETTERS = ("A", "B")
AS_IS, TEACHER = "As it is", "Dense teacher"
MORE = "more"
"""Key of the further models."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What a person has picked for a side, checked: it can be evaluated."""

    name: str
    """The checkpoint's."""
    checkpoint: Checkpoint
    kind: str = AS_IS
    """`AS_IS`, `PRUNED` or `TEACHER`."""
    setting: Setting | None = None
    """For a pruning, with its edits."""

    @property
    def text(self) -> str:
        """What the side is, in words."""
        if self.kind == TEACHER:
            return f"dense teacher of {self.name}"
        return self.name if self.setting is None else f"{self.name} pruned ({self.setting.text})"

    @property
    def look(self) -> str:
        """The kind of scored models (`ui.theme.KIND_COLORS`) as which charts draw the side."""
        return {TEACHER: "teacher", PRUNED: "static"}.get(self.kind) or kind_of(self.checkpoint.info)


@dataclass(frozen=True, eq=False)
class Side:
    """A side with all that was measured of it."""

    choice: Choice
    key: str
    """The same for the same model."""
    evaluation: Evaluation
    price: Cost
    dense: Cost
    """Of the same architecture with every layer dense."""
    read: Checkpoint
    """The choice's, with texts truncated where they were for the comparison."""


def key_of(letter: str, what: str = "") -> str:
    """The key of a side's widget, in the session and in the URL: `a` is what A is, `a_budget` how it is pruned."""
    return f"{letter.lower()}_{what}" if what else letter.lower()


def options(selection: Selection) -> dict[str, tuple[str, str]]:
    """What a side can be: label -> checkpoint and version, the sidebar's checkpoint first.

    Each of the data's task is there as it is, then pruned where it routes, then its dense teacher where its outputs
    are stored.
    """
    everything, found = loaders.discover_all(), {}
    for name in dict.fromkeys((selection.name, *everything)):
        info = everything[name]
        if not fits(info, selection.checkpoint.info.task):
            continue
        found[name] = name, AS_IS
        if state.is_routed(info):
            found[labelled(name, PRUNED)] = name, PRUNED
        if (loaders.path_of(name) / reference.FILE).is_file():
            found[labelled(name, TEACHER)] = name, TEACHER
    return found


def labelled(name: str, kind: str) -> str:
    """How a version of a checkpoint is picked."""
    return name if kind == AS_IS else f"{name}: {kind.lower()}"


def pick(letter: str, selection: Selection, start: str) -> Choice | None:
    """Draw a side's controls; returns what they say, or None where that cannot be compared, and says why.

    `start`: the option that the side has until a person picks.
    """
    known, key = options(selection), key_of(letter)
    _follow(letter, start)
    not_here.note(key, f"model for this task on side {letter}", st.query_params.get(key) in known)
    fall_back(key, known, selection.name)
    restate(key, start)
    picked = st.selectbox(
        letter,
        list(known),
        list(known).index(start),
        key=key,
        bind="query-params",
        on_change=lambda: st.query_params.pop(key_of(letter, plan_url.URL), None),
        help="Models for the task of the picked data.",
    )
    name, kind = known.get(picked, (selection.name, AS_IS))
    checkpoint = _loaded(name)
    if checkpoint is None:
        return None
    if kind == TEACHER and teacher_on(checkpoint, selection.data) is None:
        why = escape(why_no_teacher(checkpoint, selection.data))
        text = f"The dense teacher of **{escape(name)}** cannot be compared on these data: {why}."
        st.warning(text, icon=":material/school:")
        return None
    if kind != PRUNED:
        return Choice(name, checkpoint, kind)
    layers, experts = list(expert_layers(checkpoint.model)), num_experts_of(checkpoint.model)
    setting = prunings.controls(len(layers), experts, f"{key}_")
    return Choice(name, checkpoint, kind, replace(setting, edits=_edits(letter, layers, experts)))


def further(selection: Selection, taken: Sequence[str]) -> list[Choice]:
    """Draw the picker of further checkpoints as they are; returns them."""
    found = loaders.discover_all()
    task = selection.checkpoint.info.task
    free = [name for name, info in found.items() if name not in taken and fits(info, task)]
    not_here.tell_unknown(MORE, "model", free)
    if not free:
        return []
    if MORE in st.session_state:
        st.session_state[MORE] = [name for name in st.session_state[MORE] if name in free]
    with st.popover("More models", icon=":material/add:"):
        names = st.multiselect("More checkpoints, not pruned further", free, key=MORE, bind="query-params", placeholder="none")
    loaded = [(name, _loaded(name)) for name in names]
    return [Choice(name, checkpoint) for name, checkpoint in loaded if checkpoint is not None]


def fits(info: object, task: Task) -> bool:
    """Whether what is known of a checkpoint says that it can be compared on data of a task."""
    if not isinstance(info, CheckpointInfo) or TEXTS.name in (task.name, info.task.name):
        return False
    # Of GLUE's tasks two may have the same classes; one's own are named after files, and two files may be of one.
    named_apart = task.name != info.task.name and {task.name, info.task.name} <= set(TASKS)
    return info.task.reads_as(task) and not named_apart


def _loaded(name: str) -> Checkpoint | None:
    """The checkpoint, or None where it cannot be loaded, and why."""
    try:
        return loaders.load_checkpoint(name)
    except CheckpointError as error:
        st.error(f"**{escape(name)}** cannot be loaded: {escape(str(error))}", icon=":material/error:")
        return None


def _edits(letter: str, layers: Sequence[int], experts: int) -> PlanEdits:
    """The edits of a side's plan that the address has, as a link from the lab brings them."""
    key = key_of(letter, plan_url.URL)
    if not (asked := st.query_params.get(key)):
        return NO_EDITS
    try:
        edits = plan_url.decode(asked)
        edits.check(layers, experts)
    except PlanError as error:
        st.warning(f"The plan in the address was left out: {escape(str(error))}", icon=":material/block:")
        return NO_EDITS
    st.caption(f"Edited by hand in {numbered('layer', [layer for layer, _ in edits.layers])}.")
    return edits


def read_alike(choices: Sequence[Choice], data: TextData) -> tuple[int | None, str]:
    """Tokens at which all models truncate texts, the largest of their lengths, and a caption, empty where nothing is cut.

    None tokens: each may do as it does. A dense teacher's outputs are stored, and stay as they are.
    """
    checkpoints = [choice.checkpoint for choice in choices]
    own = [longest_input(one.model, one.tokenizer, one.info.max_length) for one in checkpoints]
    most = max(own)
    alike = [longest_input(one.model, one.tokenizer, most) for one in checkpoints]  # limited by positions
    longest = max(int(measurements.token_lengths(one, data).max(initial=0)) for one in checkpoints)
    if len(set(own)) == 1 or longest <= min(own):
        return None, ""
    stored = any(choice.kind == TEACHER for choice in choices)
    if stored or len(set(alike)) > 1:
        reads = own if stored else alike
        return None if stored else most, (
            f"The models truncate texts at {min(reads)} to {max(reads)} tokens: on longer ones part of the difference "
            "may come from that."
        )
    return most, f"All models read {alike[0]} tokens of a text, the largest of their lengths."


def measure(choice: Choice, data: TextData, tokens: int | None = None) -> Side:
    """Evaluate a side on the data, with progress where nobody did before.

    `tokens`: at which texts are truncated; None for the checkpoint's own length.

    Raises:
        ShrpError: it cannot be evaluated, in one sentence.
    """
    checkpoint = choice.checkpoint
    dense, read = dense_cost(checkpoint.model, TOKENS), choice.checkpoint
    if tokens not in (None, checkpoint.info.max_length):
        # Under another fingerprint, so that results are not mixed.
        info = replace(checkpoint.info, reads=tokens)
        read = replace(checkpoint, info=info, fingerprint=f"{checkpoint.fingerprint}-at-{tokens}")
    if choice.kind == TEACHER:
        key, found, price = teacher_key(checkpoint, data), teacher_on(checkpoint, data), dense
    elif choice.setting is None:
        key, found = prunings.model_key(read), measurements.evaluation(read, data)
        price = cost(checkpoint.model, TOKENS)
    else:
        plan = prunings.plan_of(choice.setting, prunings.usage_for(choice.setting.selection, checkpoint, data))
        key, found = prunings.model_key(read, plan), prunings.evaluated(read, data, plan)
        price = prunings.cost_of(checkpoint, plan)
    return Side(choice, key, found, price, dense, read)


def starts(selection: Selection) -> tuple[str, str]:
    """What A and B are at first: the sidebar's checkpoint and another of its task, else its dense teacher."""
    for name, info in loaders.discover_all().items():
        if name != selection.name and fits(info, selection.checkpoint.info.task):
            return selection.name, name
    known = teacher_on(selection.checkpoint, selection.data) is not None
    return selection.name, labelled(selection.name, TEACHER) if known else selection.name


def _follow(letter: str, start: str) -> None:
    """Bring a side that nobody has touched to its start, where another checkpoint in the sidebar has moved that."""
    key, kept = key_of(letter), f"{letter}-start"
    before = st.session_state.get(kept, start)
    st.session_state[kept] = start
    if start != before and st.session_state.get(key, before) == before:
        st.session_state[key] = start
