"""What a person has picked: checkpoint and data (sidebar), layer and expert (pages), all in widgets bound to the URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.navigation.page import StreamlitPage
from streamlit.runtime.pages_manager import PagesManager

from shrp.checkpoints.info import CheckpointInfo
from shrp.data.tasks import TEXTS, Task
from shrp.data.text_data import TextData
from shrp.errors import CheckpointError, DataError, ShrpError
from ui import data_sources, loaders, measurements, not_here
from ui.bound import follow, left_with
from ui.describe import kind_of
from ui.downloads import clicked
from ui.own import checkpoints as own_checkpoints
from ui.own import data as own_data
from ui.own import dialog, guide
from ui.own import kept as own_kept
from ui.text import escape
from ui.theme import STYLE

if TYPE_CHECKING:
    from shrp.checkpoints.checkpoint import Checkpoint

CHECKPOINT, SOURCE, LAYER, EXPERT = "checkpoint", "source", "layer", "expert"
"""Keys of the widgets, in the session's state and in the URL; `SHARED` are parameters of all pages."""
SHARED = (CHECKPOINT, SOURCE, guide.PARAM, own_kept.PARAM)
START = "sst2-base-6of12"
"""The checkpoint that the app opens with, where it is there: the README's tour starts with it."""

_READ = "source-read"
"""What this run has of `_data`, which may wait for the hub. A session without it has never been through `app.py`."""
_LEFT = "source-left"
"""The source that was picked until a checkpoint came that does not have it."""
_APP = Path(__file__).parent.parent / "app.py"
HOW_TO_TRAIN = "python -m shrp finetune --help\npython -m shrp train --help"


@dataclass(frozen=True)
class Selection:
    """The picked checkpoint, loaded, and the picked data."""

    name: str
    checkpoint: Checkpoint
    source: str
    data: TextData | None
    """None only for a page that can do without."""
    no_data: str = ""
    """Why there are none, in plain text."""

    @property
    def is_routed(self) -> bool:
        """Whether there are routers to look at."""
        return is_routed(self.checkpoint.info)


def is_routed(info: CheckpointInfo) -> bool:
    """Whether a checkpoint has routers: not pruned and not dense."""
    return kind_of(info) == "routed"


def draw_menu(pages: Sequence[StreamlitPage], here: StreamlitPage, info: CheckpointInfo | None) -> None:
    """Draw links to the pages; those that do not apply to the picked checkpoint are greyed, with the reason.

    Each leads to its page as it was left: put back later, parameters would be another step of the browser's history. That
    of the open page, `here`, keeps the address. Streamlit adds the parameters of widgets on all pages.
    """
    address = {key: st.query_params.get_all(key) for key in st.query_params}
    stays = {key: address[key] for key in (guide.PARAM, own_kept.PARAM) if key in address}
    for page in pages:
        # Of a dense model Expert usage shows the importance of heads.
        pruned = info is not None and info.plan is not None and page.url_path == "expert_usage"
        why = "This model is pruned: it has no routers." if pruned else ""
        leads = address if page == here else stays | left_with(page.url_path)
        st.page_link(page, disabled=bool(why), help=why or None, query_params=leads)


def draw_picker(*, of_data: bool) -> CheckpointInfo | None:
    """Draw the checkpoint and data pickers in the sidebar; returns the picked checkpoint's info, None if unreadable.

    Args:
        of_data: whether the page shows anything of the data; else it does not wait for the hub.
    """
    st.html(STYLE)
    st.session_state[_READ] = None
    dialog.draw()  # before the pickers, as it brings what they pick
    found = loaders.discover_all()
    if not found:
        dialog.button()
        return None
    if (new := st.session_state.pop(own_checkpoints.PICK, None)) in found:
        st.session_state[CHECKPOINT] = new
    # Options are plain names, without `format_func`: what an option looks like is what stands in the URL.
    names = sorted(found, key=lambda name: (isinstance(found[name], CheckpointError), name != START))
    if st.session_state.get(CHECKPOINT, names[0]) not in found:  # one that was removed
        # Not deleted: a session without a checkpoint is one that begins (`not_here`).
        st.session_state[CHECKPOINT] = names[0]
    not_here.note(CHECKPOINT, "checkpoint", st.query_params.get(CHECKPOINT) in found)
    name = st.selectbox(
        "Checkpoint",
        names,
        key=CHECKPOINT,
        bind="query-params",
        help="Folders under checkpoints/ and those that SHRP_CHECKPOINTS names, and your own.",
    )
    info = found.get(name)
    if not isinstance(info, CheckpointInfo):
        dialog.button()
        return None
    if not dialog.is_open():
        own_data.restore(info.task)
    if st.session_state.pop(own_data.NEW, False):
        st.session_state[SOURCE] = data_sources.OWN
    _pick_source(info.task)
    if of_data or st.session_state.get(SOURCE) != data_sources.HUB:
        st.session_state[_READ] = _data(info)
    dialog.button()
    return info


def _pick_source(task: Task) -> None:
    sources = data_sources.available_sources(task)
    if not sources:
        return
    start = data_sources.default_source(sources)
    left = st.session_state.get(_LEFT)
    if left in sources:
        st.session_state[SOURCE], st.session_state[_LEFT] = left, None
    elif (kept := st.session_state.get(SOURCE, start)) not in sources and kept != start:
        st.session_state[SOURCE], st.session_state[_LEFT] = start, left or kept  # to come back to
    not_here.note(SOURCE, "data source", st.query_params.get(SOURCE) in sources)
    source = st.selectbox(
        "Data",
        list(sources),
        index=None if start is None else 0,
        placeholder="choose data …",
        key=SOURCE,
        bind="query-params",
        on_change=lambda: st.session_state.pop(_LEFT, None),
        help="What usage, scores and prunings are measured on. The variable SHRP_DATA_DIR may name a folder "
        "with <task>/validation.parquet, of a task of your own also .csv, .tsv or .jsonl.",
    )
    st.caption(sources.get(source, ""))


def through_app() -> None:
    """Go through `app.py` where a page was started without it, in the same run, so that no click is lost.

    Streamlit takes a folder named `pages` for its older multipage layout until `st.navigation` has run once: a first visit to
    a page's address, and those meanwhile, would run that page alone.
    """
    if PagesManager.uses_pages_directory or _READ not in st.session_state:
        PagesManager.uses_pages_directory = False
        # Not by `runpy`, which is not made for two threads at once.
        code = compile(_APP.read_text(encoding="utf-8"), str(_APP), "exec", dont_inherit=True)
        exec(code, {"__name__": "__main__", "__file__": str(_APP)})
        st.stop()


def described(title: str = "", *, named: bool = True) -> tuple[str, CheckpointInfo]:
    """The picked checkpoint's name and info, without torch; where none can be read, says so and stops the page."""
    through_app()
    heading = st.container()
    if title:
        heading.title(title, anchor=False)
    found = loaders.discover_all()
    if not found:
        said = "There is no checkpoint yet. Open a model of your own, or train one into `checkpoints/`:"
        st.info(said, icon=":material/inventory_2:")
        dialog.button("own-open-page")
        st.code(HOW_TO_TRAIN, language="bash")
        st.stop()
    name = st.session_state.get(CHECKPOINT)
    name = name if name in found else next(iter(found))
    info = found[name]
    if isinstance(info, CheckpointError):
        _say_broken(name, info)
    if title and named:
        heading.caption(f"Checkpoint **{escape(name)}**, task {escape(info.task.name)}")
    not_here.show(CHECKPOINT, SOURCE)
    if info.task.name == TEXTS.name:
        st.info(
            f"**{escape(name)}** was converted on unlabelled text: its head is not trained yet. Usage, routes and "
            "attention can be looked at; predictions and scores mean nothing.",
            icon=":material/school:",
        )
        st.code("python -m shrp train --help", language="bash")
    return name, info


def _say_broken(name: str, error: CheckpointError) -> None:
    st.error(
        f"**{escape(name)}** can't be loaded: {escape(str(error))}\n\n"
        "Pick another checkpoint in the sidebar, or repair this one; the page follows by itself.",
        icon=":material/error:",
    )
    st.stop()


def current(picked: tuple[str, CheckpointInfo], *, needs_data: bool = True) -> Selection:
    """What is `described`, loaded, with the data; where there is nothing to load, says so and stops the page."""
    name, _ = picked
    loaders.libraries()
    try:
        loaded = loaders.load_checkpoint(name)
    except CheckpointError as error:
        _say_broken(name, error)
    source, data, why = read(loaded.info)
    if data is None and needs_data:
        st.warning(escape(why), icon=":material/database_off:")
        dialog.button("own-open-page")
        st.stop()
    if data is None:
        return Selection(name, loaded, source, None, why)
    try:
        length = measurements.longest(loaded)
        cut = int((measurements.token_lengths(loaded, data) > length).sum())
    except DataError as error:  # a text that no tokenizer reads
        show_error(error)
        st.stop()
    if cut:
        st.sidebar.caption(
            f":material/content_cut: {cut:,} of {len(data):,} examples of {escape(data.name)} "
            f"{'is' if cut == 1 else 'are'} longer than {length:,} tokens: the rest is not read."
        )
    return Selection(name, loaded, source, data)


def read(info: CheckpointInfo) -> tuple[str, TextData | None, str]:
    """The picked source, all of its data, and why there are none."""
    return st.session_state.get(_READ) or _data(info)


def _data(info: CheckpointInfo) -> tuple[str, TextData | None, str]:
    sources = data_sources.available_sources(info.task)
    source = st.session_state.get(SOURCE)
    if source not in sources:
        source = data_sources.default_source(sources)
    try:
        if source is None:
            hub = " pick the hub in the sidebar, which needs a network once," * (data_sources.HUB in sources)
            raise DataError(
                f"There are no data at hand for the task '{info.task.name}':{hub} give your own in the sidebar, or start "
                "the app with SHRP_DATA_DIR naming a folder of data."
            )
        return source, data_sources.load_dataset(source, info.task), ""
    except DataError as error:
        return source or "", None, str(error)


def show_error(error: ShrpError) -> None:
    """An error of the library's, in words, where its result would have been."""
    st.error(escape(str(error)), icon=":material/error:")


def shows_errors(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that draws show an error of the library's in place of the rest, and return None then."""

    @wraps(draw)
    def drawn(*args: Any, **options: Any) -> Any:
        try:
            return draw(*args, **options)
        except ShrpError as error:
            show_error(error)

    return drawn


def open_tab(names: Sequence[str], key: str) -> tuple[str, DeltaGenerator]:
    """Draw tabs; returns the name and the place of the open one."""
    follow({key: names}, {key: names[0]})  # a step of the browser's history, which `bind` makes none
    tabs = zip(names, st.tabs(names, key=key, on_change="rerun"), strict=True)
    return next((name, tab) for name, tab in tabs if tab.open)


def lazy_tabs(parts: Mapping[str, Callable[[], Any]], key: str) -> Any:
    """Draw tabs by name, of which only the open one is computed, with its errors shown; returns what that returns."""
    name, place = open_tab([*parts], key)
    with place:
        return shows_errors(parts[name])()


def lazy_expander(title: str, draw: Callable[[], Any], key: str, icon: str) -> None:
    """Draw an expander whose content is computed once it is opened, with its errors shown."""
    part = st.expander(title, key=key, icon=icon, on_change="rerun")
    if part.open:
        with part:
            shows_errors(draw)()


def page_link(page: str, label: str, icon: str | None = None, asked: Mapping[str, Any] | None = None) -> None:
    """Draw a link to a page of the app, with the parameters that it asks for and the sidebar's picks.

    It may begin a session, in a new tab. What a widget of the page has at first is best left out: it would be taken out, by a
    step of the browser's history.
    """
    picked = {key: st.session_state.get(key) for key in (CHECKPOINT, SOURCE)}
    params = {key: value for key, value in picked.items() if value} | {key: str(one) for key, one in (asked or {}).items()}
    st.page_link(page, label=label, icon=icon, query_params=params, width="content")


def follow_cell(layers: Sequence[int], experts: Sequence[int], start: tuple[int, int]) -> None:
    """Keep the layer and expert pickers and the address in step (`ui.bound.follow`); call before they are drawn.

    A layer that the model does not have brings both back to the start.
    """
    if st.session_state.get(LAYER, start[0]) not in layers:
        st.session_state[EXPERT] = start[1]
    follow({LAYER: layers, EXPERT: experts}, {LAYER: start[0], EXPERT: start[1]})


def pick_cell(chart_key: str) -> None:
    """`on_select` callback: put a clicked cell, `customdata` (layer, expert, ...), into the pickers."""
    if cell := clicked(chart_key):
        st.session_state[LAYER], st.session_state[EXPERT] = map(int, cell[:2])
