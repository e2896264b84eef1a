"""Links: what one brings back of a page's widgets, and those from a row of a table to pages that look closer."""

import numpy as np
import pytest
from streamlit.runtime.pages_manager import PagesManager
from streamlit.runtime.scriptrunner import script_runner

from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from tests.app.helpers import links, texts_of
from ui import closer, pair_tabs
from ui.lab import view
from ui.usage import attention

DEFAULTS_OUT = (
    *(pair_tabs.GROUPS, view.TAB, view.SWEEP, view.AGAINST, "budget", "select", "keep"),
    *("edit_layer", "force_layer", "force_expert"),
)


def test_a_link_to_an_expert_leads_there_whatever_was_picked_before(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint)
    start = at.selectbox(key="layer").value, at.selectbox(key="expert").value  # what an address leaves out
    at.selectbox(key="layer").set_value(1).run()
    at.selectbox(key="expert").set_value((start[1] + 1) % 4).run()
    at.switch_page("pages/routing.py").run()
    (asked,) = (query for label, query in links(at.main).items() if label.startswith("What layer 2"))
    other = (start[1] + 2) % 4
    for query, wanted in (
        (asked, (2, int(asked["expert"]))),
        ({"layer": str(start[0]), "expert": str(start[1])}, start),
        ({"layer": "1", "expert": str(other)}, (1, other)),
        ({"layer": "99", "expert": "x"}, start),
    ):
        at.query_params.clear()
        at.query_params.update(query)
        at.switch_page("pages/expert_usage.py").run()
        assert (at.selectbox(key="layer").value, at.selectbox(key="expert").value) == wanted
        at.selectbox(key="layer").set_value(1).run()
        at.switch_page("pages/routing.py").run()


def test_what_a_link_leaves_out_is_as_at_first(open_page, tiny_checkpoint):
    at = open_page("compare", tiny_checkpoint, b="tiny: pruned", b_budget=5, b_select="Random (control)")
    at.switch_page("pages/pruning_lab.py").run()
    asked = links(at.main)["Compare"]
    at.query_params.clear()
    at.query_params.update(asked)
    at.switch_page("pages/compare.py").run()
    assert (at.slider(key="b_budget").value, at.session_state["b_select"]) == (4, "usage")


def test_what_an_address_asks_for_in_vain_is_told_until_something_is_picked(open_page, tiny_checkpoint, save_tiny):
    def said(at):
        return [one.value.replace("\\", "").replace("**", "") for one in at.main.warning]

    save_tiny("other")
    at = open_page("overview", tiny_checkpoint, checkpoint="mine (yours)", source="own")
    of_model, of_data = said(at)
    assert "mine (yours)" in of_model
    assert "other" in of_model
    assert "own" in of_data
    assert "probe" in of_data
    assert len(said(at.run())) == 2
    at.selectbox(key="checkpoint").set_value("tiny").run()
    assert said(at) == [of_data]
    asked = {"a": "mine (yours)", "b": "tiny: pruned", "more": "gone", "compare_tab": "Nowhere"}
    told = "\n".join(said(open_page("compare", tiny_checkpoint, **asked)))
    assert all(name in told for name in ("mine (yours)", "gone", "Nowhere"))


@pytest.mark.parametrize(
    ("page", "params"), [("pruning_lab", {"plan": "1n1p3"}), ("routing", {"text": "w1", "force": "1.2"})]
)
def test_what_the_address_says_of_a_checkpoint_that_is_not_here_is_not_done_to_another(
    open_page, tiny_checkpoint, page, params
):
    at = open_page(page, tiny_checkpoint, **{"checkpoint": "mine (yours)"} | params)
    assert at.main.warning
    assert "left out" in texts_of(at)
    assert not {"plan", "force"} & {*at.query_params}


@pytest.mark.parametrize("page", ["pruning_lab", "routing"])
def test_what_nobody_picked_stays_out_of_the_address(open_page, tiny_checkpoint, page):
    at = open_page(page, tiny_checkpoint).run()  # again: a first run writes nothing of what it shows
    assert not {*DEFAULTS_OUT} & {*at.query_params}


def test_a_link_in_a_new_tab_has_the_checkpoint_and_the_data(open_page, tiny_checkpoint, save_tiny):
    save_tiny("another")
    at = open_page("routing", tiny_checkpoint, checkpoint="another", text="w1 w2\nw3 w4", input=2)
    (asked,) = (query for label, query in links(at).items() if label.startswith("What layer 2"))
    assert {"checkpoint": "another", "source": "probe"}.items() <= asked.items()
    fresh = open_page("expert_usage", tiny_checkpoint, **asked)
    assert fresh.selectbox(key="checkpoint").value == "another"
    assert fresh.selectbox(key="layer").value == 2


@pytest.mark.parametrize(("page", "first"), [("routing", True), ("results", False)])
def test_a_page_that_is_started_without_the_app_goes_through_it(monkeypatch, open_page, tiny_checkpoint, page, first):
    """The first visit after a start, to a page's address, and one that begins before that has run `st.navigation`."""
    alone, started = script_runner._mpa_v1, []

    def start(path):
        started.append(path)
        PagesManager.uses_pages_directory = first
        alone(path)

    monkeypatch.setattr(script_runner, "_mpa_v1", start)
    monkeypatch.setattr(PagesManager, "uses_pages_directory", True)
    at = open_page(page, tiny_checkpoint)
    assert started
    assert at.sidebar.selectbox(key="checkpoint").value == tiny_checkpoint.name
    assert len(at.title) == 1


def test_a_page_comes_back_as_it_was_left_where_its_address_lost_that(open_page, tiny_checkpoint):
    """As the browser's Back does: Streamlit has taken a page's parameters out of the address it comes back to."""
    at = open_page("expert_usage", tiny_checkpoint, layer=1, expert=3)
    at.switch_page("pages/routing.py").run()
    at.query_params.clear()
    at.switch_page("pages/expert_usage.py").run()
    assert (at.selectbox(key="layer").value, at.selectbox(key="expert").value) == (1, 3)
    wanted = {"layer": "1", "expert": "3"}
    assert {name: at.query_params[name] for name in wanted} == wanted


def test_the_menu_greys_what_does_not_apply(open_page, tiny_checkpoint, tiny_static_checkpoint):
    def greyed(folder):
        menu = open_page("routing", folder).sidebar.get("page_link")
        return {link.proto.page for link in menu if link.proto.disabled}

    assert greyed(tiny_checkpoint) == set()
    assert greyed(tiny_static_checkpoint) == {"expert_usage"}
    at = open_page("routing", tiny_checkpoint)
    at.query_params["sentence"] = "2"
    assert links(at.run())["Routing"]["sentence"] == "2"  # a click on the open page loses nothing


# From a row of a table to the pages that look closer at its input

SST2 = load_probe("sst2")


def pick_row(at, start, row):
    """Pick a row of the table whose key starts so, as a click does; run the page."""
    known = at.session_state._state.filtered_state
    (key,) = (k for k, value in known.items() if k.startswith(start) and "selection" in str(value))
    at.session_state[key] = {"selection": {"rows": [row], "columns": [], "cells": []}}
    return at.run()


def test_a_row_of_all_answers_leads_to_its_route_and_its_words(open_page, tiny_checkpoint, tiny_static_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    assert closer.ROUTE not in links(at)
    at = pick_row(at, "answers-all", 3)
    for label in (closer.ROUTE, closer.WORDS):
        assert links(at)[label]["text"] == SST2.texts[3][0]
        assert links(at)[label]["checkpoint"] == "tiny"
    at.selectbox(key="checkpoint").set_value("tiny-static").run()
    at = pick_row(at, "answers-all", 0)
    assert closer.WORDS in links(at)
    assert closer.ROUTE not in links(at)  # of a model without routers


@pytest.mark.parametrize(
    ("text", "why"),
    [("one ||| more", "cannot be typed"), ("", "cannot be typed"), ("word " * 2000, "too long for a link")],
)
def test_what_no_address_can_hold_has_no_link(monkeypatch, text, why):
    said = []
    monkeypatch.setattr(closer.st, "caption", said.append)
    monkeypatch.setattr(closer.state, "page_link", lambda *_: pytest.fail("linked"))
    data = TextData(TASKS["mrpc"], "pairs", ((text, "another"), ("fine", "too")), np.array([0, 1]))
    closer.links(data, [0], routed=True)
    assert why in said[0]


def test_an_experts_input_leads_on_while_it_is_in_the_table(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint, layer=1, expert=0)
    table = next(frame.value for frame in at.dataframe if "router probability" in frame.value)
    number = int(table["index"].iloc[2])
    at = pick_row(at, "inputs-", 2)  # its callback runs in a browser alone
    at.session_state[attention.EXAMPLE] = number
    at.run()
    assert links(at)[closer.ROUTE]["text"] == SST2.texts[number][0]
    other = int(np.setdiff1d(np.arange(len(SST2)), table["index"])[0])
    at.session_state[attention.EXAMPLE] = other
    assert closer.ROUTE not in links(at.run())
