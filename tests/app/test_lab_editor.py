"""Editing the slider's plan by hand: clicks, boxes, and the page's address."""

import pytest

from shrp.data.sources import load_probe
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.plan import LayerEdit, PlanEdits
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from tests.app.helpers import figure, report, targets, values
from ui import bound
from ui.lab import edits as lab_edits


@pytest.fixture
def direct(loaded, stats):
    """`direct(edits, **options)`: the plan and evaluation that the page must show, made without it."""

    def made(edits=(), **options):
        plan = plan_from(stats, edits=PlanEdits(tuple(dict(edits).items())), **options)
        return plan, evaluate(prune(loaded.model, plan), loaded.tokenizer, load_probe("sst2"))

    return made


def assert_shows(at, plan, evaluation):
    assert not at.error
    (said,) = (one.value for one in at.markdown if "experts: " in one.value)
    assert said.replace("*", "").startswith(f"{plan.budget} of 8 experts")
    cells = targets(figure(at, "Kept experts"))
    pairs = zip(cells["customdata"], cells["hovertext"], strict=True)
    kept = [cell[:2] for cell, text in pairs if ": kept" in text]
    assert kept == [[layer, expert] for layer, p in plan.layers for expert in p.experts]
    (point,) = (t for t in figure(at, "by cost")["data"] if t.get("name", "").startswith("now"))
    assert values(point["y"])[0] == pytest.approx(100 * evaluation.score)


def click(at, layer, expert):
    cells = targets(figure(at, "Kept experts"))["customdata"]
    cell = next(cell for cell in cells if cell[:2] == [layer, expert])
    point = {"customdata": dict(zip("012", cell, strict=True)), "curve_number": 4, "point_index": 0}
    selection = {"points": [point], "point_indices": [0], "box": [], "lasso": []}
    chart = next(c for c in at.get("plotly_chart") if c.proto.id.endswith("kept-map"))
    return report(at, chart.proto.id, {"selection": selection})


def marks(at):
    """What the map's legend names, with the number of cells marked so."""
    traces = [t for t in figure(at, "Kept experts")["data"] if t.get("name")]
    return {t["name"]: sum(x is not None for x in t["x"]) for t in traces}


def plan_in(at):
    """The plan in the address; empty without one."""
    found = at.query_params.get("plan", [])
    return found if isinstance(found, str) else "".join(found)


@pytest.fixture
def page(open_page, tiny_checkpoint):
    return open_page("pruning_lab", tiny_checkpoint, budget="4")


def test_clicks_pin_drop_and_free_an_expert_at_every_slider_position(page, direct):
    base, _ = direct(budget=4)
    other = next(e for e in range(4) if e not in dict(base.layers)[2].experts)
    at = click(page, 2, other)
    assert marks(at) == {"pinned": 1, "dropped": 0}
    assert plan_in(at) == f"2p{other}"
    assert_shows(at, *direct({2: LayerEdit(pinned=(other,))}, budget=4))
    at.slider(key="budget").set_value(5).run()
    assert_shows(at, *direct({2: LayerEdit(pinned=(other,))}, budget=5))
    at = click(at, 2, other)
    assert marks(at) == {"pinned": 0, "dropped": 1}
    assert_shows(at, *direct({2: LayerEdit(dropped=(other,))}, budget=5))
    at = click(at, 2, other)
    assert (marks(at), plan_in(at)) == ({"pinned": 0, "dropped": 0}, "")
    at = click(click(at, 1, 0), 2, 3)
    assert plan_in(at) == "1p0_2p3"
    at.button(key="edit-reset").click().run()
    assert plan_in(at) == ""
    assert_shows(at, *direct(budget=5))


def test_boxes_do_the_same_as_clicks(page, direct):
    at = page
    at.selectbox(key="edit_layer").set_value(2).run()
    at.multiselect(key="edit-pinned").set_value([0, 1]).run()
    at.multiselect(key="edit-dropped").set_value([1, 3]).run()  # the box that was changed wins
    at.number_input(key="edit-count").set_value(2).run()
    assert_shows(at, *direct({2: LayerEdit(2, (0,), (1, 3))}, budget=4))
    at.number_input(key="edit-count").set_value(4).run()  # more than are left
    assert at.main.warning
    assert plan_in(at) == "2n2p0d1.3"


def test_a_link_restores_edits_and_a_bad_one_is_left_out(open_page, tiny_checkpoint, direct):
    at = open_page("pruning_lab", tiny_checkpoint, budget=4, plan="2p3d0")
    assert_shows(at, *direct({2: LayerEdit(pinned=(3,), dropped=(0,))}, budget=4))
    for bad in ("9p0", "<b>"):  # not of this model, and no plan
        at = open_page("pruning_lab", tiny_checkpoint, budget=4, plan=bad)
        assert at.main.warning
        assert plan_in(at) == ""
        assert_shows(at, *direct(budget=4))


def test_back_restores_the_edits_of_the_address(page, direct, monkeypatch):
    at = click(page, 2, 3)
    at.query_params.pop("plan")
    at.run()  # as a request does that was on its way before the click
    assert plan_in(at) == "2p3"
    monkeypatch.setattr(bound, "went_back", lambda: True)
    at.query_params.pop("plan")  # as Back does
    at.run()
    assert_shows(at, *direct(budget=4))
    at.query_params["plan"] = "2p3"  # and forward
    at.run()
    assert_shows(at, *direct({2: LayerEdit(pinned=(3,))}, budget=4))


def test_edits_belong_to_their_checkpoint(page, save_tiny):
    at = click(page, 2, 3)
    save_tiny("other", routing="token")
    at.run()
    at.selectbox(key="checkpoint").set_value("other").run()
    assert plan_in(at) == ""
    at.selectbox(key="checkpoint").set_value("tiny").run()
    assert plan_in(at) == "2p3"


@pytest.fixture
def editor(monkeypatch):
    monkeypatch.setattr(lab_edits, "set_param", lambda *_: None)
    return lab_edits.Editor((1, 2), 4)


def test_a_refused_change_leaves_the_last_good_state(editor):
    editor.change(1, LayerEdit(pinned=(0,)))
    good = editor.edits
    for layer, edit in ((1, LayerEdit(pinned=(9,))), (1, LayerEdit(dropped=(0, 1, 2, 3))), (7, LayerEdit(pinned=(0,)))):
        editor.change(layer, edit)
        assert editor.notice
        assert editor.edits == good
    editor.change(1, LayerEdit())
    assert not editor.notice
    assert not editor.edits


def test_a_click_that_is_reported_twice_counts_once(editor):
    editor.click(1, 2, editor.serial)
    editor.click(1, 2, 0)
    assert editor.edits.of(1).pinned == (2,)
    editor.click(1, 2, editor.serial)
    assert editor.edits.of(1).dropped == (2,)
