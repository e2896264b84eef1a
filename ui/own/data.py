"""A person's own table of sentences: read (`ui.own.table`), fitted to a task, and a data source of this session.

A table is read once and then fitted to the task of the picked checkpoint: its columns are guessed and can be
chosen. What can't be read or fitted is refused in words, and the data that were in use before stay in use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from shrp.data import tabular
from shrp.data.tasks import LABEL, Task
from shrp.data.text_data import pairs_of
from shrp.errors import DataError
from shrp.phrases import counted
from ui import data_sources
from ui.own import kept as own_kept
from ui.own import labels as own_labels
from ui.own.fit import Columns, complete, fit, guess
from ui.own.table import (
    MAX_BYTES,
    MAX_ROWS,
    MB,
    Table,
    data_roots,
    named_paths,
    read_file,
    read_path,
    read_upload,
)
from ui.text import escape

_TABLE, _FITTED, _PROBLEM = "own-table", "own-table-fitted", "own-data-problem"
_FIRST = "own-table-first"
"""The table and the task that it was first fitted to, whose its labels are taken to be where they are mere numbers."""
_UPLOADS, _PATH, _TAKEN = "own-data-uploads", "own-data-path", "own-data-path-taken"
_NO_COLUMN = "none"
_LOG = logging.getLogger(__name__)


# ---- the sidebar ----


def upload_limit(ours: int) -> int:
    """The largest upload in MB: `ours`, or the server's own limit where that is lower."""
    return min(ours, int(st.get_option("server.maxUploadSize")))


def draw(task: Task) -> bool:
    """Draw the section in the sidebar and make what it holds the session's own data (`data_sources.OWN_DATA`).

    Call before the picker of the data is drawn.

    Returns:
        Whether the data are of a table that was not in use before, and so are to be picked.
    """
    session = st.session_state
    uploads = session.setdefault(_UPLOADS, 0)
    with st.expander("Your own data", icon=":material/upload_file:"):
        # Not by `on_change`: whoever touches anything while it is read would end that for good.
        file = st.file_uploader(
            "A table of sentences",
            type=[extension[1:] for extension in tabular.EXTENSIONS],
            key=f"{_UPLOADS}-{uploads}",  # a new key empties the box; what was read is shown below it
            max_upload_size=upload_limit(MAX_BYTES // MB),
            help=f"CSV, TSV, JSONL or Parquet, at most {MAX_BYTES // MB} MB and {MAX_ROWS:,} rows. Labels are "
            "optional. It is read for this session alone and nobody else sees it.",
        )
        if file is not None:
            if _take(lambda: read_upload(file.name, file.getbuffer())):
                own_kept.keep(session[_TABLE].name, file.getbuffer())
            session[_UPLOADS] += 1
            st.rerun()
        if data_roots():
            path = st.text_input(
                "or its path on the app's machine",
                key=_PATH,
                help=escape(f"Below {named_paths(data_roots())}."),
            )
            if path != session.get(_TAKEN, ""):
                if path.strip():
                    _take(lambda: read_path(path))
                session[_TAKEN] = path
                st.rerun()
        again = session.get(_TABLE) is None and (file := own_kept.kept_file()) is not None
        if again:  # the page was loaded anew
            _take(lambda: read_file(file))
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
            st.error(
                escape(
                    f"'{table.name}' can't be used ({type(error).__name__}); remove it, or repair the file."
                ),
                icon=":material/error:",
            )
            return False
        own_kept.keep_choices(f"own-{table.fingerprint[:16]}-")
        return new and not (again and st.query_params.get("source", data_sources.OWN) != data_sources.OWN)


def options(*, pairs: bool = True) -> list[str]:
    """With which the command line reads this session's own table as it is read here, but for slices; empty without one.

    Args:
        pairs: whether the command takes a column of minimal pairs.
    """
    if (fitted := st.session_state.get(_FITTED)) is None:
        return []
    _, task, columns = fitted
    return options_of(columns, task, pairs=pairs)


def options_of(columns: Columns, task: Task, *, pairs: bool = True) -> list[str]:
    """With which the command line takes a table's columns for what they are here; args as for `options`."""
    words = []
    if columns.texts != tuple(task.text_columns):
        words += [word for text in columns.texts for word in ("--text-column", text)]
    if columns.label not in (None, LABEL):
        words += ["--label-column", columns.label]
    if columns.pair is not None and pairs:
        words += ["--pair-column", columns.pair]
    words += [w for label, meaning in columns.meanings for w in ("--label-means", f"{label}={meaning or ''}")]
    return words + ["--skip-incomplete"] * columns.skip_incomplete


def slice_column() -> str | None:
    """The column of this session's own table that its slices are of; None where there is none."""
    fitted = st.session_state.get(_FITTED)
    return None if fitted is None else fitted[2].slice


def _same(table: Table) -> tuple[str, str]:
    """Equal for the same file under the same name, which decides how it is read and what it is called."""
    return table.name, table.fingerprint


def _draw_table(table: Table, task: Task) -> bool:
    session = st.session_state
    st.markdown(f"**{escape(table.name)}**: {len(table.frame):,} rows")
    preview = table.frame.head(3)
    preview.attrs = {}  # how it was read, which is not to be shown
    st.dataframe(preview, hide_index=True, height=143, alt=f"The first rows of {table.name}")
    columns, new = _choose(table, task), False
    kept = session.get(data_sources.OWN_DATA)
    stays = "" if kept is None or kept.task != task else f" Until then '{kept.name}' stays in use as it was."
    whole = complete(table, columns)
    columns = _skipping(table, task, columns, len(table.frame) - len(whole))
    frame = whole if columns.skip_incomplete else table.frame
    labels = [] if columns.label is None else frame[columns.label].tolist()
    meanings = _meanings(table, task, columns, labels)
    open_question = "say what each label means"
    if columns.label is not None and not _of_this_task(table, task, labels, meanings):
        meanings, open_question = None, "say whether its labels are this task's"
    try:
        if meanings is None:
            st.info(
                escape(f"Not in use yet: {open_question}, or take no label column.{stays}"),
                icon=":material/label:",
            )
        elif session.get(_FITTED) != (key := (_same(table), task, replace(columns, meanings=meanings))):
            data = fit(table, task, key[-1])
            new = session.get(_FITTED, key[:0])[:1] != key[:1]
            session[data_sources.OWN_DATA], session[_FITTED] = data, key
        if meanings == () and columns.label is not None:
            said = own_labels.read_as(labels, task, table.name)
            if said:
                st.caption(f":material/info: Its labels are taken for class ids: {escape(said)}.")
        if (
            meanings is not None
            and columns.pair is not None
            and not len(pairs_of(session[data_sources.OWN_DATA]))
        ):
            names = len({name for name in session[data_sources.OWN_DATA].pairs or () if name})
            st.caption(
                f":material/info: none of the {names:,} names in its pair column is of two inputs with different "
                "labels."
            )
        if meanings is not None and (left := len(table.frame) - len(session[data_sources.OWN_DATA])):
            st.caption(f"{left:,} of {len(table.frame):,} rows {'is' if left == 1 else 'are'} left out.")
    except DataError as error:
        st.error(
            escape(f"{error} Choose other columns, or repair the file and upload it again.{stays}"),
            icon=":material/error:",
        )
    return new


def _of_this_task(
    table: Table, task: Task, labels: Sequence[Any], meanings: own_labels.Meanings | None
) -> bool:
    """Whether labels that are mere numbers are the task's: they are of the one that they were first read for, and of
    others a box says it. Others have names.
    """
    if st.session_state.get(_FIRST, (None,))[0] != _same(table):
        st.session_state[_FIRST] = _same(table), task
    if meanings != () or st.session_state[_FIRST][1] == task:
        return True
    try:
        ids = own_labels.read_as(labels, task, table.name)
    except DataError:  # fitting the table says what is wrong
        return True
    if not ids and not task.is_regression:
        return True
    what = f"labels of {task.name}: {ids}" if ids else f"values of {task.name}"
    return st.checkbox(
        escape(f"Its numbers are {what}"),
        key=f"own-{table.fingerprint[:16]}-{task.name}-labels",
        persist_state="session",
        help="They were read for another task before, and numbers say nothing of their meaning.",
    )


def _choose(table: Table, task: Task) -> Columns:
    """The boxes for the columns; they start at the guess."""
    names, start = list(table.frame.columns), guess(table, task)
    # A key of its own for each table and task, so that a box starts at that one's guess; and kept while another task
    # is picked, so that it comes back with what was chosen for this one.
    key = f"own-{table.fingerprint[:16]}-{task.name}"
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
    none = next(n for n in (_NO_COLUMN, "no column", "(no column)") if n not in names)
    extra = [
        st.selectbox(
            label,
            [none, *names],
            index=0 if guessed is None else 1 + names.index(guessed),
            key=f"{key}-{part}",
            persist_state="session",
            help=text,
        )
        for label, part, guessed, text in (
            ("Label column", "label", start.label, _label_help(task)),
            ("Slice column", "slice", start.slice, "Any text that groups inputs, such as a phenomenon."),
            (
                "Pair column",
                "pair",
                start.pair,
                "Two inputs with the same name here form a minimal pair: nearly the same text, different labels.",
            ),
        )
    ]
    label, piece, pair = (None if value == none else value for value in extra)
    return Columns(texts, label, piece, pair=pair)


def _skipping(table: Table, task: Task, columns: Columns, lacking: int) -> Columns:
    """The columns, and whether incomplete rows, which are so many, are left out: a box that is there where some are."""
    if not lacking:
        return columns
    return replace(
        columns,
        skip_incomplete=st.checkbox(
            f"Leave out {counted(lacking, 'row')} without a text{' or label' * (columns.label is not None)}",
            value=True,
            key=f"own-{table.fingerprint[:16]}-{task.name}-incomplete",
            persist_state="session",
        ),
    )


def _meanings(table: Table, task: Task, columns: Columns, cells: Sequence[Any]) -> own_labels.Meanings | None:
    """What the labels mean: nothing to say where they are the task's own, None while that is open.

    Args:
        cells: the labels of the rows that are taken; none without a column of them.
    """
    labels = own_labels.unknown(cells, task, table.name)
    # The key holds the column too, so that another one's boxes start at their own guesses.
    key = f"own-{table.fingerprint[:16]}-{task.name}-{columns.label}"
    return own_labels.choose(labels, task, key) if labels else ()


def _label_help(task: Task) -> str:
    if task.is_regression:
        return "Optional. Numbers."
    return escape(
        f"Optional. One of {', '.join(task.label_names)}, or their ids 0 to {task.num_labels - 1}; of other labels you "
        "are asked what they mean."
    )


def _take(read: Callable[[], Table]) -> bool:
    """Put what was read in the place of the table before it; after an error, that one stays. Returns whether it was
    read.
    """
    try:
        st.session_state[_TABLE] = read()
        st.session_state[_PROBLEM] = ""
        return True
    except DataError as error:
        kept = st.session_state.get(
            data_sources.OWN_DATA
        )  # a table whose columns don't fit is shown, but not in use
        stays = f" '{kept.name}' stays in use." if kept is not None else ""
        end = "" if str(error).endswith(".") else "."
        st.session_state[_PROBLEM] = f"{error}{end}{stays}"
        return False


def remove() -> None:
    """Forget the session's own table and its data."""
    for key in (_TABLE, _FITTED, _FIRST, _PROBLEM, data_sources.OWN_DATA):
        st.session_state.pop(key, None)
    own_kept.forget()
    own_kept.set_param(own_kept.PARAM, None)
    st.session_state[_PATH] = ""  # not taken out, which would leave the browser's box as it is
