"""A person's own table of sentences: read (`ui.own_table`), fitted to a task, and a data source of this session.

A table is read once and then fitted to the task of the picked checkpoint: its columns are guessed and can be
chosen. What can't be read or fitted is refused in words, and the data that were in use before stay in use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st

from shrp import tabular
from shrp.data import TextData, from_frame
from shrp.errors import DataError
from shrp.minimal_pairs import pairs_of
from shrp.tasks import Task
from ui import loaders, own_labels
from ui.own_table import MAX_BYTES, MAX_ROWS, MB, Table, data_roots, named_paths, read_path, read_upload
from ui.text import escape

MAX_CHARACTERS = 20_000
"""Of one text."""
MAX_SLICES, MAX_SLICE_NAME = 100, 200
"""Different values of a slice column, for which pages have a bar, a row or an option each; and characters of one."""
_TABLE, _FITTED, _PROBLEM = "own-table", "own-table-fitted", "own-data-problem"
_UPLOADS, _PATH = "own-data-uploads", "own-data-path"
_NO_COLUMN = "none"
_TEXT_NAMES = ("text", "sentence", "review", "content")


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are for; None: there is none."""

    texts: tuple[str, ...]
    label: str | None
    slice: str | None
    meanings: own_labels.Meanings = ()
    """Of labels that are not the task's own."""
    pair: str | None = None


def guess(table: Table, task: Task) -> Columns:
    """What the columns are probably for: by the task's names, else the usual ones, else the longest texts. The label is
    the column of that name, else the only one that holds nothing but names of the task's classes.
    """
    names = list(table.frame.columns)
    texts = list(task.text_columns)
    if not set(texts) <= set(names):
        usual = [name for name in names if name.lower() in _TEXT_NAMES]
        strings = [n for n in names if all(isinstance(cell, str) for cell in table.frame[n].iloc[:50])]
        strings.sort(key=lambda n: -sum(map(len, table.frame[n].iloc[:50])))  # stable: ties keep their order
        best = list(dict.fromkeys([*usual, *strings, *names]))[: len(texts)]
        texts = sorted(best, key=names.index)
    label, piece, pair = (
        name if name in names and name not in texts else None for name in ("label", "slice", "pair")
    )
    if label is None and not task.is_regression:
        left = [name for name in names if name not in (*texts, piece, pair)]
        named = [name for name in left if _names_classes(table.frame[name], task)]
        label = named[0] if len(named) == 1 else None
    return Columns(tuple(texts), label, piece, pair=pair)


def _names_classes(column: pd.Series, task: Task) -> bool:
    """Whether every cell is the name of one of the task's classes."""
    return len(column) > 0 and bool(column.isin(task.label_names).all())


def fit(table: Table, task: Task, columns: Columns) -> TextData:
    """The table's rows as data of a task.

    Raises:
        DataError: the columns do not hold what is needed, or a text is too long; one sentence says where.
    """
    if len(set(columns.texts)) != len(task.text_columns):
        raise DataError(
            f"'{task.name}' reads {len(task.text_columns)} texts an input, so it needs as many different columns."
        )
    used = [*columns.texts, *filter(None, (columns.label, columns.slice, columns.pair))]
    if len(set(used)) != len(used):
        raise DataError(
            "One column can't be a text, the label, the slice and the pair at once; choose different ones."
        )
    if columns.slice is not None:
        values = table.frame[columns.slice].nunique()
        if values > MAX_SLICES:
            raise DataError(
                f"Column '{columns.slice}' of '{table.name}' has {values:,} different values; slices group inputs, so "
                f"choose a column with {MAX_SLICES} at most, or none."
            )
        longest = max(len(str(cell)) for cell in table.frame[columns.slice].unique())
        if longest > MAX_SLICE_NAME:
            raise DataError(
                f"Column '{columns.slice}' of '{table.name}' has a value of {longest:,} characters; names of slices "
                f"have {MAX_SLICE_NAME} at most, so choose another column, or none."
            )
    data = from_frame(
        table.frame,
        task,
        table.name,
        columns.label,
        columns.slice,
        columns.texts,
        meanings=dict(columns.meanings),
        pair_column=columns.pair,
    )
    for row, texts in enumerate(table.frame[list(columns.texts)].itertuples(index=False), 1):
        if (longest := max(map(len, texts))) > MAX_CHARACTERS:
            raise DataError(
                f"'{table.name}', row {row}: a text has {longest:,} characters; at most {MAX_CHARACTERS:,} are "
                "taken, so cut it or leave the row out."
            )
    return data


# ---- the sidebar ----


def upload_limit(ours: int) -> int:
    """The largest upload in MB: `ours`, or the server's own limit where that is lower."""
    return min(ours, int(st.get_option("server.maxUploadSize")))


def draw(task: Task) -> bool:
    """Draw the section in the sidebar and make what it holds the session's own data (`loaders.OWN_DATA`).

    Call before the picker of the data is drawn.

    Returns:
        Whether the data are of a table that was not in use before, and so are to be picked.
    """
    session = st.session_state
    uploads = session.setdefault(_UPLOADS, 0)
    with st.expander("Your own data", icon=":material/upload_file:"):
        st.file_uploader(
            "A table of sentences",
            type=[extension[1:] for extension in tabular.EXTENSIONS],
            key=f"{_UPLOADS}-{uploads}",  # a new key empties the box; what was read is shown below it
            on_change=_uploaded,
            args=(f"{_UPLOADS}-{uploads}",),
            max_upload_size=upload_limit(MAX_BYTES // MB),
            help=f"CSV, TSV, JSONL or Parquet, at most {MAX_BYTES // MB} MB and {MAX_ROWS:,} rows. Labels are "
            "optional. It is read for this session alone and nobody else sees it.",
        )
        if data_roots():
            st.text_input(
                "or its path on the app's machine",
                key=_PATH,
                on_change=_pointed,
                help=escape(f"Below {named_paths(data_roots())}."),
            )
        if session.get(_PROBLEM):
            st.error(escape(session[_PROBLEM]), icon=":material/error:")
        table = session.get(_TABLE)
        if table is None:
            if not session.get(_PROBLEM):
                st.caption(
                    "With labels every page works; without, pages show usage, routes and flips, no scores."
                )
            return False
        return _draw_table(table, task)


def _same(table: Table) -> tuple[str, str]:
    """Equal for the same file under the same name, which decides how it is read and what it is called."""
    return table.name, table.fingerprint


def _draw_table(table: Table, task: Task) -> bool:
    session = st.session_state
    st.markdown(f"**{escape(table.name)}**: {len(table.frame):,} rows")
    columns, new = _choose(table, task), False
    kept = session.get(loaders.OWN_DATA)
    stays = "" if kept is None or kept.task != task else f" Until then '{kept.name}' stays in use as it was."
    meanings = _meanings(table, task, columns)
    try:
        if meanings is None:
            st.info(
                escape(f"Not in use yet: say what each label means, or take no label column.{stays}"),
                icon=":material/label:",
            )
        elif session.get(_FITTED) != (key := (_same(table), task, replace(columns, meanings=meanings))):
            data = fit(table, task, key[-1])
            new = session.get(_FITTED, key[:0])[:1] != key[:1]
            session[loaders.OWN_DATA], session[_FITTED] = data, key
        if meanings == () and columns.label is not None:
            said = own_labels.read_as(table.frame[columns.label].tolist(), task, table.name)
            if said:
                st.caption(f":material/info: {escape(said)}")
        if meanings is not None and columns.pair is not None and not len(pairs_of(session[loaders.OWN_DATA])):
            names = len({name for name in session[loaders.OWN_DATA].pairs or () if name})
            st.caption(
                f":material/info: none of the {names:,} names in its pair column is of two inputs with different "
                "labels."
            )
        if meanings and (left := len(table.frame) - len(session[loaders.OWN_DATA])):
            st.caption(f"{left:,} of {len(table.frame):,} rows are left out.")
    except DataError as error:
        st.error(
            escape(f"{error} Choose other columns, or repair the file and upload it again.{stays}"),
            icon=":material/error:",
        )
    st.button(
        f"Remove {escape(table.name)}", key="own-data-remove", on_click=remove, icon=":material/delete:"
    )
    return new


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


def _meanings(table: Table, task: Task, columns: Columns) -> own_labels.Meanings | None:
    """What the labels mean: nothing to say where they are the task's own, None while that is open."""
    if columns.label is None:
        return ()
    labels = own_labels.unknown(table.frame[columns.label].tolist(), task, table.name)
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


def _uploaded(key: str) -> None:
    file = st.session_state.get(key)
    if file is None:
        return
    _take(lambda: read_upload(file.name, file.getbuffer()))
    st.session_state[_UPLOADS] += 1


def _pointed() -> None:
    text = st.session_state.get(_PATH, "")
    if text.strip():
        _take(lambda: read_path(text))


def _take(read: Callable[[], Table]) -> None:
    """Put what was read in the place of the table before it; after an error, that one stays."""
    try:
        st.session_state[_TABLE] = read()
        st.session_state[_PROBLEM] = ""
    except DataError as error:
        kept = st.session_state.get(
            loaders.OWN_DATA
        )  # a table whose columns don't fit is shown, but not in use
        stays = f" '{kept.name}' stays in use." if kept is not None else ""
        end = "" if str(error).endswith(".") else "."
        st.session_state[_PROBLEM] = f"{error}{end}{stays}"


def remove() -> None:
    """Forget the session's own table and its data."""
    for key in (_TABLE, _FITTED, _PROBLEM, loaders.OWN_DATA):
        st.session_state.pop(key, None)
    st.session_state[_PATH] = ""  # not taken out, which would leave the browser's box as it is
