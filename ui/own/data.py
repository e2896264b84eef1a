"""A person's own table of sentences: read (`ui.own.table`), fitted to a task, and a data source of this session.

Its columns are guessed and can be chosen in the dialog (`ui.own.dialog`); on every run the choices are applied to the
picked checkpoint's task. What can't be read or fitted is refused in words, and the data in use stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from shrp.data import tabular
from shrp.data.tasks import Task
from shrp.errors import DataError
from shrp.phrases import counted
from ui import data_sources, jobs
from ui.bound import set_param
from ui.own import boxes
from ui.own import kept as own_kept
from ui.own import labels as own_labels
from ui.own.fit import Columns, complete, fit, guess
from ui.own.table import MAX_BYTES, MAX_ROWS, MB, Table, data_roots, read_file, read_upload
from ui.text import escape

NEW = "own-data-new"
"""Key of the session's state: whether the session's own data are of a table not used before, and so are to be picked."""
_TABLE, _FITTED, PROBLEM = "own-table", "own-table-fitted", "own-data-problem"
_FIRST = "own-table-first"
"""The table and the task that it was first fitted to: labels that are mere numbers are taken to be of that task."""
_LOG = logging.getLogger(__name__)


Ask = Callable[..., Any]


def drawn(label: str, options: Sequence[Any], index: int | None, key: str, help: str | None = None) -> Any:
    """Ask by a box that remembers what was chosen."""
    kept = {"key": key, "persist_state": "session", "placeholder": "choose"}
    return st.selectbox(label, options, index, help=help, **kept)


def remembered(
    label: str, options: Sequence[Any], index: int | None, key: str, help: str | None = None
) -> Any:
    """What the box of that key was left at, without drawing it."""
    picked = st.session_state.get(key)
    return picked if picked in options else None if index is None else options[index]


def draw(task: Task) -> None:
    """Draw the dialog's step: where a table is given, and what its columns mean for a task."""
    session, stays = st.session_state, "It stays on this machine."
    if not own_kept.is_local():
        stays = "A job on it keeps a copy." if jobs.allowed() else "Only this session sees it."
    boxes.draw(
        "own-data",
        "A table of sentences",
        [extension[1:] for extension in tabular.EXTENSIONS],
        MAX_BYTES // MB,
        f"CSV, TSV, JSONL or Parquet, at most {MAX_BYTES // MB} MB and {MAX_ROWS:,} rows. Labels are optional. {stays}",
        data_roots(),
        "file",
        _take_new,
    )
    if session.get(PROBLEM):
        st.error(escape(session[PROBLEM]), icon=":material/error:")
    if (table := session.get(_TABLE)) is None:
        st.caption("With labels there are scores; without, usage, routes and changed predictions.")
        return
    preview = table.frame.head(3)
    preview.attrs = {}  # how it was read, which is not to be shown
    st.markdown(f"**{escape(table.name)}**: {len(table.frame):,} rows")
    st.dataframe(preview, hide_index=True, height=143, alt=f"The first rows of {table.name}")
    for said in _apply(table, task, drawn):
        st.caption(said)
    # Whatever is wrong with the table: a session must be able to get rid of it.
    st.button(f"Remove {escape(table.name)}", key="own-data-remove", on_click=remove, icon=":material/delete:")


def restore(task: Task) -> None:
    """Make the session's table its own data (`data_sources.OWN_DATA`) of a task, by the choices of the dialog.

    After a reload of the page the table is read again where it was kept.
    """
    kept = own_kept.kept_file() if st.session_state.get(_TABLE) is None else None
    if kept is not None:
        _take(lambda: read_file(kept))
    if (table := st.session_state.get(_TABLE)) is not None:
        _apply(table, task, remembered)
    if kept is not None and st.query_params.get("source", data_sources.OWN) != data_sources.OWN:
        st.session_state[NEW] = False


def _apply(table: Table, task: Task, ask: Ask) -> list[str]:
    """Fit a table to a task by what was chosen, and say why if it can't be; returns what else there is to say."""
    try:
        return _fitted(table, task, ask)
    except DataError as error:
        before = st.session_state.get(data_sources.OWN_DATA)
        stays = ""
        if before is not None and before.task == task:
            one = "it is used as it was" if before.name == table.name else f"'{before.name}' stays in use"
            stays = f" Until then {one}."
        st.error(escape(f"{error}{stays}"), icon=":material/error:")
    except Exception as error:  # of content that nobody thought of
        _LOG.exception("a person's own table")
        said = f"'{table.name}' can't be used ({type(error).__name__}); remove it, or repair the file."
        st.error(escape(said), icon=":material/error:")
    finally:
        own_kept.keep_choices(f"own-{table.fingerprint[:16]}-")
    return []


def _same(table: Table) -> tuple[str, str]:
    """Equal for the same file under the same name, which decides how it is read and what it is called."""
    return table.name, table.fingerprint


def _fitted(table: Table, task: Task, ask: Ask) -> list[str]:
    """As `_apply`; a DataError says what is missing or wrong."""
    session, rows, said = st.session_state, len(table.frame), []
    columns = _choose(table, task, ask)
    frame = complete(table, columns) if columns.skip_incomplete else table.frame
    labels = [] if columns.label is None else frame[columns.label].tolist()
    unknown = own_labels.unknown(labels, task, table.name)
    # The key holds the column too, so that another one's boxes start at their own guesses.
    key = f"{_key(table, task)}-{columns.label}"
    meanings = own_labels.choose(unknown, task, key, ask)
    if meanings is None:
        raise DataError(
            f"'{table.name}' has labels that {task.name} lacks: choose what each means, or no label column."
        )
    key = _same(table), task, replace(columns, meanings=meanings)
    if session.get(_FITTED) != key:
        try:
            data = fit(table, task, key[-1])
        except DataError as error:
            raise DataError(f"{error} Choose other columns, or repair the file and upload it again.") from error
        session[NEW] = session.get(NEW) or session.get(_FITTED, key[:0])[:1] != key[:1]
        session[data_sources.OWN_DATA], session[_FITTED] = data, key
    if not meanings and (ids := own_labels.read_as(labels, task, table.name)):
        said.append(f":material/info: Labels are read as class ids: {escape(ids)}.")
    data = session[data_sources.OWN_DATA]
    if columns.label in labels:
        said.append(
            f":material/warning: The first row names the columns, and '{escape(columns.label)}' is a label too: if the file "
            "has no such row, add one."
        )
    if left := rows - len(data):
        said.append(f"{left:,} of {rows:,} rows {'is' if left == 1 else 'are'} left out.")
    return said


def _key(table: Table, task: Task) -> str:
    """What the keys of the boxes begin with: each table and task has its own, which come back with what was chosen."""
    return f"own-{table.fingerprint[:16]}-{task.name}"


def _guess(table: Table, task: Task) -> Columns:
    """`guess`, without labels that are mere numbers where they were first read as another task's."""
    first = st.session_state.get(_FIRST)
    if first is None or first[0] != _same(table):
        st.session_state[_FIRST] = first = _same(table), task
    start = guess(table, task)
    if start.label is None or first[1] == task:
        return start
    try:
        ids = own_labels.read_as(table.frame[start.label].tolist(), task, table.name)
    except DataError:  # fitting the table says what is wrong
        return start
    return replace(start, label=None) if ids or task.is_regression else start


def _choose(table: Table, task: Task, ask: Ask) -> Columns:
    """What the columns are for, as asked by boxes that start at the guess."""
    names, start, key = list(table.frame.columns), _guess(table, task), _key(table, task)
    single = len(task.text_columns) == 1
    texts = tuple(
        ask(
            "Text column" if single else f"Column of '{escape(name)}'",
            names,
            names.index(start.texts[i]) if i < len(start.texts) else 0,
            f"{key}-text-{i}",
        )
        for i, name in enumerate(task.text_columns)
    )
    none = next(n for n in ("none", "no column", "(no column)") if n not in names)

    def optional(part: str, help: str) -> str | None:
        index = [None, *names].index(getattr(start, part))
        picked = ask(f"{part.capitalize()} column", [none, *names], index, f"{key}-{part}", help)
        return None if picked == none else picked

    columns = Columns(
        texts,
        optional("label", _label_help(task)),
        optional("slice", "Any text that groups examples, such as a phenomenon."),
    )
    if lacking := len(table.frame) - len(complete(table, columns)):
        said = (
            f"Leave out {counted(lacking, 'row')} without a text{' or label' * (columns.label is not None)}"
        )
        box = f"{key}-incomplete"
        if ask is drawn:
            st.checkbox(said, value=True, key=box, persist_state="session")
        columns = replace(columns, skip_incomplete=st.session_state.get(box, True))
    return columns


def _label_help(task: Task) -> str:
    if task.is_regression:
        return "Optional. Numbers."
    if task.on_spans:
        return "Optional. The answer as it stands in the text, or answers as in SQuAD's files."
    return escape(
        f"Optional. One of {', '.join(task.label_names)}, or their ids 0 to {task.num_labels - 1}; you are asked what "
        "other labels mean."
    )


def _take_new(given: Any) -> None:
    """Read an upload or a path; it is kept for a reload of the page."""
    if isinstance(given, str):
        find = partial(boxes.find, given, data_roots(), "file", DataError, anywhere=own_kept.is_local())
        if _take(lambda: read_file(find())):
            own_kept.keep(find().name, find().read_bytes())
    elif _take(lambda: read_upload(given.name, given.getbuffer())):
        own_kept.keep(st.session_state[_TABLE].name, given.getbuffer())


def _take(read: Callable[[], Table]) -> bool:
    """Put what was read in the place of the table before it, unless it was an error; returns whether it was read."""
    session = st.session_state
    try:
        session[_TABLE], session[PROBLEM] = read(), ""
    except (DataError, OSError) as error:
        said = str(error)
        if isinstance(error, OSError):
            said = f"The file can't be read: {error.strerror or error}"
        before = session.get(data_sources.OWN_DATA)
        stays = f" '{before.name}' stays in use." if before is not None else ""
        session[PROBLEM] = f"{said.removesuffix('.')}.{stays}"
        return False
    return True


def remove() -> None:
    """Forget the session's own table and its data."""
    for key in (_TABLE, _FITTED, _FIRST, PROBLEM, data_sources.OWN_DATA):
        st.session_state.pop(key, None)
    own_kept.forget()
    set_param(own_kept.PARAM, None)
    boxes.empty("own-data")
