"""Links from a row of a table to the pages that look closer at its input."""

from urllib.parse import parse_qs

import numpy as np
import pytest

from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from ui import closer
from ui.usage import attention

SST2, COLA = load_probe("sst2"), load_probe("cola")


def pick_row(at, start, row):
    """Pick a row of the table whose key starts so, as a click does; run the page."""
    known = at.session_state._state.filtered_state
    (key,) = (k for k, value in known.items() if k.startswith(start) and "selection" in str(value))
    at.session_state[key] = {"selection": {"rows": [row], "columns": [], "cells": []}}
    return at.run()


def links(at):
    """What each link asks of its page, by label."""
    return {one.proto.label: parse_qs(one.proto.query_string) for one in at.get("page_link")}


def test_a_row_of_all_answers_leads_to_its_route_and_its_words(
    open_page, tiny_checkpoint, tiny_static_checkpoint
):
    at = open_page("overview", tiny_checkpoint)
    assert closer.ROUTE not in links(at)
    at = pick_row(at, "answers-all", 3)
    for label in (closer.ROUTE, closer.WORDS):
        assert links(at)[label]["text"] == list(SST2.texts[3])
        assert links(at)[label]["checkpoint"] == ["tiny"]
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
    monkeypatch.setattr(closer.arrival, "page_link", lambda *_: pytest.fail("linked"))
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
    assert links(at)[closer.ROUTE]["text"] == list(SST2.texts[number])
    other = int(np.setdiff1d(np.arange(len(SST2)), table["index"])[0])
    at.session_state[attention.EXAMPLE] = other
    assert closer.ROUTE not in links(at.run())
