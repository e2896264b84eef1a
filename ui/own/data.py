"""A person's own table of sentences: read (`ui.own.table`), fitted to a task, and a data source of this session.

Its columns are guessed and can be chosen. What can't be read or fitted is refused in words, and the data in use stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import streamlit as st

from shrp.data import tabular
from shrp.data.tasks import Task
from shrp.data.text_data import pairs_of
from shrp.errors import DataError
from shrp.phrases import counted
from ui import data_sources
from ui.own import boxes
from ui.own import kept as own_kept
from ui.own import labels as own_labels
from ui.own.fit import Columns, complete, fit, guess
from ui.own.table import MAX_BYTES, MAX_ROWS, MB, Table, data_roots, read_file, read_upload
from ui.text import escape

_TABLE, _FITTED, _PROBLEM = "own-table", "own-table-fitted", "own-data-problem"
_FIRST = "own-table-first"
"""The table and the task that it was first fitted to: labels that are mere numbers are taken to be of that task."""
_LOG = logging.getLogger(__name__)


def draw(task: Task) -> bool:
    """Draw the section in the sidebar and make what it holds the session's own data (`data_sources.OWN_DATA`).

    Returns whether the data are of a table that was not in use before, and so are to be picked.
    """
    session = st.session_state
    with st.expander("Your own data", icon=":material/upload_file:"):
        boxes.draw(
            "own-data",
            "A table of sentences",
            [extension[1:] for extension in tabular.EXTENSIONS],
            MAX_BYTES // MB,
            f"CSV, TSV, JSONL or Parquet, at most {MAX_BYTES // MB} MB and {MAX_ROWS:,} rows. Labels are optional. "
            "Only this session sees it.",
            data_roots(),
            _take_new,
        )
        kept = own_kept.kept_file() if session.get(_TABLE) is None else None
        if kept is not None:  # the page was reloaded
            _take(lambda: read_file(kept))
        if session.get(_PROBLEM):
            st.error(escape(session[_PROBLEM]), icon=":material/error:")
        table = session.get(_TABLE)
        if table is None:
            if not session.get(_PROBLEM):
                st.caption("With labels there are scores; without, usage, routes and changed predictions.")
            return False
        # First, and whatever is wrong with the table: a session must be able to get rid of it.
        st.button(
            f"Remove {escape(table.name)}", key="own-data-remove", on_click=remove, icon=":material/delete:"
        )
        try:
            new = _draw_table(table, task)
        except Exception as error:  # of content that nobody thought of
            _LOG.exception("a person's own table")
            said = f"'{table.name}' can't be used ({type(error).__name__}); remove it, or repair the file."
            st.error(escape(said), icon=":material/error:")
            return False
        own_kept.keep_choices(f"own-{table.fingerprint[:16]}-")
        elsewhere = st.query_params.get("source", data_sources.OWN) != data_sources.OWN
        return new and not (kept is not None and elsewhere)


def _same(table: Table) -> tuple[str, str]:
    """Equal for the same file under the same name, which decides how it is read and what it is called."""
    return table.name, table.fingerprint


def _draw_table(table: Table, task: Task) -> bool:
    session, rows = st.session_state, len(table.frame)
    st.markdown(f"**{escape(table.name)}**: {rows:,} rows")
    preview = table.frame.head(3)
    preview.attrs = {}  # how it was read, which is not to be shown
    st.dataframe(preview, hide_index=True, height=143, alt=f"The first rows of {table.name}")
    before = session.get(data_sources.OWN_DATA)
    stays = "" if before is None or before.task != task else f" Until then '{before.name}' stays in use."
    columns = _choose(table, task)
    frame = complete(table, columns) if columns.skip_incomplete else table.frame
    labels = [] if columns.label is None else frame[columns.label].tolist()
    unknown = own_labels.unknown(labels, task, table.name)
    # The key holds the column too, so that another one's boxes start at their own guesses.
    meanings = own_labels.choose(unknown, task, f"{_key(table, task)}-{columns.label}") if unknown else ()
    if meanings is None:
        said = f"Not in use yet: choose what each label means, or no label column.{stays}"
        st.info(escape(said), icon=":material/label:")
        return False
    key, new = (_same(table), task, replace(columns, meanings=meanings)), False
    try:
        if session.get(_FITTED) != key:
            data = fit(table, task, key[-1])
            new = session.get(_FITTED, key[:0])[:1] != key[:1]
            session[data_sources.OWN_DATA], session[_FITTED] = data, key
        if not meanings and (said := own_labels.read_as(labels, task, table.name)):
            st.caption(f":material/info: Labels are read as class ids: {escape(said)}.")
    except DataError as error:
        said = f"{error} Choose other columns, or repair the file and upload it again.{stays}"
        st.error(escape(said), icon=":material/error:")
        return False
    data = session[data_sources.OWN_DATA]
    if columns.pair is not None and not len(pairs_of(data)):
        st.caption(":material/info: No two rows with one name in the pair column have different labels.")
    if left := rows - len(data):
        st.caption(f"{left:,} of {rows:,} rows {'is' if left == 1 else 'are'} left out.")
    return new


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


def _choose(table: Table, task: Task) -> Columns:
    """The boxes for the columns; they start at the guess."""
    names, start, key = list(table.frame.columns), _guess(table, task), _key(table, task)
    single = len(task.text_columns) == 1
    texts = tuple(
        st.selectbox(
            "Text column" if single else f"Column of '{escape(name)}'",
            names,
            index=names.index(start.texts[i]) if i < len(start.texts) else 0,
            key=f"{key}-text-{i}",
            persist_state="session",
        )
        for i, name in enumerate(task.text_columns)
    )
    none = next(n for n in ("none", "no column", "(no column)") if n not in names)

    def optional(part: str, help: str) -> str | None:
        index = [None, *names].index(getattr(start, part))
        label, box = f"{part.capitalize()} column", {"key": f"{key}-{part}", "persist_state": "session"}
        picked = st.selectbox(label, [none, *names], index, help=help, **box)
        return None if picked == none else picked

    columns = Columns(
        texts,
        optional("label", _label_help(task)),
        optional("slice", "Any text that groups examples, such as a phenomenon."),
        pair=optional("pair", "Two examples with the same name here form a minimal pair."),
    )
    if lacking := len(table.frame) - len(complete(table, columns)):
        said = (
            f"Leave out {counted(lacking, 'row')} without a text{' or label' * (columns.label is not None)}"
        )
        skip = st.checkbox(said, value=True, key=f"{key}-incomplete", persist_state="session")
        columns = replace(columns, skip_incomplete=skip)
    return columns


def _label_help(task: Task) -> str:
    if task.is_regression:
        return "Optional. Numbers."
    return escape(
        f"Optional. One of {', '.join(task.label_names)}, or their ids 0 to {task.num_labels - 1}; you are asked what "
        "other labels mean."
    )


def _take_new(given: Any) -> None:
    """Read an upload or a path; an upload is kept for a reload of the page."""
    if isinstance(given, str):
        _take(lambda: read_file(boxes.find(given, data_roots(), "file", DataError)))
    elif _take(lambda: read_upload(given.name, given.getbuffer())):
        own_kept.keep(st.session_state[_TABLE].name, given.getbuffer())


def _take(read: Callable[[], Table]) -> bool:
    """Put what was read in the place of the table before it, unless it was an error; returns whether it was read."""
    session = st.session_state
    try:
        session[_TABLE], session[_PROBLEM] = read(), ""
    except (DataError, OSError) as error:
        said = (
            str(error)
            if isinstance(error, DataError)
            else f"The file can't be read: {error.strerror or error}"
        )
        before = session.get(data_sources.OWN_DATA)
        stays = f" '{before.name}' stays in use." if before is not None else ""
        session[_PROBLEM] = f"{said.removesuffix('.')}.{stays}"
        return False
    return True


def remove() -> None:
    """Forget the session's own table and its data."""
    for key in (_TABLE, _FITTED, _FIRST, _PROBLEM, data_sources.OWN_DATA):
        st.session_state.pop(key, None)
    own_kept.forget()
    own_kept.set_param(own_kept.PARAM, None)
    st.session_state["own-data-path"] = ""  # not taken out, which would leave the browser's box as it is
