"""A slider whose ends change under its key, as they do from model to model."""

from types import SimpleNamespace

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from ui import bound

START = 4


def script():
    import streamlit as st

    from ui.bound import slider

    high = st.selectbox("Model", [12, 8, 20], key="model")
    if not st.checkbox("Another page", key="away"):
        st.session_state["shown"] = slider("Kept", 2, high, 4, "kept")


def done(at, what, value):
    """Do something and run the app, with the address as a browser has it."""
    if what == "kept":
        at.slider(key=what).set_value(value)
        at.query_params.pop(what, None)
        if value != START:
            at.query_params[what] = str(value)
    else:
        (at.selectbox if what == "model" else at.checkbox)(key=what).set_value(value)
    at.run()
    assert not at.exception


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        ([("kept", 12), ("away", True), ("model", 8), ("away", False)], 8),
        # The value that the visit before ended with is not the newest any more.
        ([("kept", 12), ("away", True), ("away", False), ("kept", START), ("model", 8)], START),
        ([("kept", 12), ("away", True), ("away", False), ("kept", 6), ("model", 8)], 6),
        ([("kept", 12), ("model", 20), ("kept", 18), ("model", 12), ("kept", 3), ("model", 8)], 3),
    ],
)
@pytest.mark.parametrize("interrupted", [False, True])
def test_it_keeps_the_newest_value_within_its_ends(monkeypatch, steps, shown, interrupted):
    at = AppTest.from_function(script, default_timeout=60).run()
    for step in steps[:-1]:
        done(at, *step)
    if interrupted:  # just before the slider is drawn
        with monkeypatch.context() as patch:
            patch.setattr(st, "slider", lambda *_, **__: st.stop())
            done(at, *steps[-1])
        at.run()
    else:
        done(at, *steps[-1])
    assert not at.exception
    assert at.session_state["shown"] == at.slider(key="kept").value == shown


class Address(dict):
    def get_all(self, key):
        return [self[key]]


def test_an_interrupted_run_that_ends_late_brings_no_older_address_back(monkeypatch):
    session = {}

    def begin(number):
        address, context = Address(n=number), SimpleNamespace(query_string="")
        monkeypatch.setattr(bound, "st", SimpleNamespace(session_state=session, query_params=address))
        monkeypatch.setattr(bound, "get_script_run_ctx", lambda: context)
        (run := bound.remembered("lab", ())).__enter__()
        return run, context

    (first, asked), (second, _) = begin("3"), begin("4")
    asked.query_string = "n=3"  # written by Streamlit
    for run in (first, second):
        run.__exit__(None, None, None)
    assert session[bound._LEFT_WITH]["lab"] == {"n": ["4"]}
