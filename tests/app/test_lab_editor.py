"""Editing the slider's plan by hand: clicks, table, boxes, files, undo, and the page's address."""

import re

import pytest

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.plan import LayerEdit, LayerPlan, PlanEdits, PruningPlan, make_plan
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from tests.app.helpers import report, specs, targets, texts_of
from ui.lab import editor as lab_editor
from ui.lab import edits as lab_edits
from ui.lab import export as lab_export
from ui.lab.edits import COUNT, PLAN_BYTES, Editor


def direct(folder, edits=(), **options):
    """The plan and evaluation that the page must show, made without it."""
    loaded, data = checkpoints.load(folder), load_probe("sst2")
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    plan = plan_from(stats, edits=PlanEdits(tuple(dict(edits).items())), **options)
    return plan, evaluate(prune(loaded.model, plan), loaded.tokenizer, data)


def assert_shows(at, plan, evaluation):
    assert not at.exception
    assert not at.error
    values = {m.label: m.value for m in at.metric}
    assert values["Experts kept"].startswith(f"{plan.budget} of")
    assert values["Accuracy"] == f"{100 * evaluation.score:.1f}%"
    cells = targets(specs(at)[0])
    kept = [
        cell[:2]
        for cell, text in zip(cells["customdata"], cells["hovertext"], strict=True)
        if ": kept" in text
    ]
    assert kept == [[layer, expert] for layer, p in plan.layers for expert in p.experts]


def click(at, layer, expert):
    cells = targets(specs(at)[0])["customdata"]
    cell = next(cell for cell in cells if cell[:2] == [layer, expert])
    point = {"customdata": dict(zip("012", cell, strict=True)), "curve_number": 4, "point_index": 0}
    selection = {"points": [point], "point_indices": [0], "box": [], "lasso": []}
    return report(at, at.get("plotly_chart")[0].proto.id, {"selection": selection})


def set_counts(at, **rows):
    changed = {row: {COUNT: count} for row, count in rows.items()}
    value = {"edited_rows": changed, "added_rows": [], "deleted_rows": []}
    return report(at, at.data_editor[0].proto.id, value)


def marks(at):
    """What the map's legend names, with the number of cells marked so."""
    data = specs(at)[0]["data"]
    return {t["name"].split(":")[0]: sum(x is not None for x in t["x"]) for t in data if t.get("name")}


def plan_in(at):
    """The plan in the address; none without one."""
    values = at.query_params.get("plan", [])
    return values if isinstance(values, str) else "".join(values)


@pytest.fixture
def page(open_page, tiny_checkpoint):
    at = open_page("pruning_lab", tiny_checkpoint, budget="4")
    assert not at.exception
    return at


def test_clicks_pin_drop_and_free_an_expert_at_every_slider_position(page, tiny_checkpoint):
    base, _ = direct(tiny_checkpoint, budget=4)
    kept = dict(base.layers)[2].experts
    other = next(e for e in range(4) if e not in kept)
    assert marks(page) == {"pinned": 0, "dropped by hand": 0}
    click(page, 2, other)
    assert plan_in(page) == f"2p{other}"
    assert marks(page)["pinned"] == 1
    pinned = {2: LayerEdit(pinned=(other,))}
    assert_shows(page, *direct(tiny_checkpoint, pinned, budget=4))
    tried = next(iter(page.session_state["lab-tried"].values()))
    assert any(a.setting.text.startswith("edit 1: 4 in all (from 4 in all)") for a in tried.values())
    page.slider(key="budget").set_value(2).run()
    assert_shows(page, *direct(tiny_checkpoint, pinned, budget=2))
    assert plan_in(page) == f"2p{other}"
    click(page, 2, other)
    assert plan_in(page) == f"2d{other}"
    assert marks(page) == {"pinned": 0, "dropped by hand": 1}
    click(page, 2, other)
    assert plan_in(page) == ""
    assert_shows(page, *direct(tiny_checkpoint, budget=2))


def test_undo_redo_and_reset_keep_the_address_in_step(page, tiny_checkpoint):
    assert page.button(key="edit-undo").disabled
    assert page.button(key="edit-reset").disabled
    click(page, 1, 0)
    set_counts(page, **{"1": 3})
    assert plan_in(page) == "1p0_2n3"
    page.button(key="edit-undo").click().run()
    assert plan_in(page) == "1p0"
    page.button(key="edit-redo").click().run()
    assert plan_in(page) == "1p0_2n3"
    assert page.button(key="edit-redo").disabled
    page.button(key="edit-reset").click().run()
    assert plan_in(page) == ""
    assert_shows(page, *direct(tiny_checkpoint, budget=4))
    page.button(key="edit-undo").click().run()
    edits = {1: LayerEdit(pinned=(0,)), 2: LayerEdit(3)}
    assert_shows(page, *direct(tiny_checkpoint, edits, budget=4))
    assert plan_in(page) == "1p0_2n3"


def test_counts_in_the_table(page, tiny_checkpoint):
    set_counts(page, **{"0": 4})
    set_counts(page, **{"0": 4, "1": 1})  # the table reports all its changes each time
    assert plan_in(page) == "1n4_2n1"
    assert_shows(page, *direct(tiny_checkpoint, {1: LayerEdit(4), 2: LayerEdit(1)}, budget=4))
    set_counts(page, **{"0": 9})  # the browser would not allow it
    assert "layer 1 can keep 1 to 4 experts, not 9" in texts_of(page)
    assert plan_in(page) == "1n4_2n1"
    table = page.data_editor[0].value
    assert table[COUNT].tolist() == [4, 1]
    set_counts(page, **{"0": None})
    assert plan_in(page) == "2n1"


def test_the_table_of_counts_comes_back_with_the_edits_and_is_one_checkpoints(page, save_tiny):
    save_tiny("another", training={"epochs": 3})
    set_counts(page, **{"0": 4})
    page.switch_page("pages/overview.py").run()
    page.switch_page("pages/pruning_lab.py").run()
    assert page.data_editor[0].value[COUNT].fillna(0).tolist() == [4, 0]
    set_counts(page, **{"1": 1})
    assert plan_in(page) == "1n4_2n1"
    page.selectbox(key="checkpoint").set_value("another").run()
    assert page.data_editor[0].value[COUNT].isna().all()
    assert plan_in(page) == ""
    assert not [one for one in page.warning if "constant answer" not in one.value]


def test_boxes_do_the_same_as_clicks(page, tiny_checkpoint):
    page.selectbox(key="edit_layer").set_value(2).run()
    page.multiselect(key="edit-pinned").set_value([3]).run()
    page.multiselect(key="edit-dropped").set_value([0, 3]).run()  # the box changed last wins
    assert plan_in(page) == "2d0.3"
    assert page.multiselect(key="edit-pinned").value == []
    assert_shows(page, *direct(tiny_checkpoint, {2: LayerEdit(dropped=(0, 3))}, budget=4))
    page.multiselect(key="edit-dropped").set_value([0, 1, 2, 3]).run()
    assert "all 4 experts of layer 2 would be dropped" in texts_of(page)
    assert page.multiselect(key="edit-dropped").value == [0, 3]
    assert plan_in(page) == "2d0.3"


def test_a_link_restores_edits_and_a_bad_one_is_left_out(open_page, tiny_checkpoint):
    at = open_page("pruning_lab", tiny_checkpoint, budget="3", plan="1p3_2n1d0")
    edits = {1: LayerEdit(pinned=(3,)), 2: LayerEdit(1, (), (0,))}
    assert_shows(at, *direct(tiny_checkpoint, edits, budget=3))
    assert plan_in(at) == "1p3_2n1d0"
    for link, words in (
        ("7n2", "layer 7 is not among"),
        ("1d0.1.2.3", "all 4 experts"),
        ("<b>", "can't be read"),
    ):
        at = open_page("pruning_lab", tiny_checkpoint, budget="3", plan=link)
        assert_shows(at, *direct(tiny_checkpoint, budget=3))
        assert "The plan in the address was left out" in texts_of(at)
        assert words in texts_of(at)
        assert plan_in(at) == ""


def test_a_plan_goes_out_and_comes_back(page, tiny_checkpoint):
    plan = PruningPlan(((1, LayerPlan((3,), (1.0,))), (2, LayerPlan((0, 2), (0.25, 0.75)))))

    def upload(content):
        page.file_uploader[0].set_value(("mine.json", content, "application/json")).run()

    upload(lab_export.plan_json(plan).encode())
    loaded = checkpoints.load(tiny_checkpoint)
    assert_shows(page, plan, evaluate(prune(loaded.model, plan), loaded.tokenizer, load_probe("sst2")))
    assert "Weights as in the file: layers 1, 2" in texts_of(page)
    link = plan_in(page)
    assert link == "1n1p3w1.0_2n2p0.2w0.25~0.75_by-usage"
    upload(b'{"layers": {"1": {"experts": [7], "weights": [1]}, "2": {"experts": [0], "weights": [1]}}}')
    assert "mine.json was not loaded" in texts_of(page)
    assert "expert 7 in layer 1" in texts_of(page)
    assert plan_in(page) == link
    upload(lab_export.plan_json(plan).encode())  # the same file once more
    assert "mine.json was loaded" in texts_of(page)


@pytest.fixture
def editor(monkeypatch):
    monkeypatch.setattr(lab_edits.st, "query_params", {})
    return Editor("tiny", (6, 7, 8), 4)


def test_a_refused_change_leaves_the_last_good_state(editor):
    editor.set_counts({0: {COUNT: 2}})
    editor.click(6, 0, editor.serial)
    editor.click(6, 1, editor.serial)
    good, steps, serial = editor.edits, len(editor.past), editor.serial
    editor.click(6, 2, editor.serial)
    assert "set to keep 2 and has 3 experts pinned" in editor.notice
    assert editor.refused
    assert (editor.edits, len(editor.past)) == (good, steps)
    assert editor.serial > serial  # so that the map and the table are drawn afresh
    editor.click(7, 0, editor.serial)
    assert not editor.notice


@pytest.mark.parametrize("value", [2.5, "3", True, [1], float("nan"), 10**30])
def test_a_table_may_report_anything(editor, value):
    editor.set_counts({"0": {COUNT: value}, "99": {COUNT: 1}})
    assert editor.refused
    assert not editor.edits


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00", "not a text file"),
        (b"", "not a readable JSON file"),
        (b" " * (PLAN_BYTES + 1), "less than 200 kB"),
        (b"{}", "not a pruning plan"),
        (b'{"layers": {"6": {"experts": [0], "weights": [1]}}}', "layers are \\[6, 7, 8\\]"),
    ],
)
def test_files_that_are_no_plan_for_this_model(editor, content, words):
    editor.load("x.json", content)
    assert editor.refused
    assert re.search(words, editor.notice)
    assert not editor.edits
    assert not editor.past


def test_a_click_that_is_reported_twice_counts_once(editor):
    drawn = editor.serial
    editor.click(6, 0, drawn)
    editor.click(6, 0, drawn)
    assert editor.edits.of(6).pinned == (0,)
    editor.click(7, 1, drawn)  # a quick one on another cell of the same drawing
    assert editor.edits.of(7).pinned == (1,)
    editor.click(6, 0, editor.serial)
    assert editor.edits.of(6).dropped == (0,)


def test_a_new_edit_after_undo_forgets_what_was_undone(editor):
    editor.click(6, 0, editor.serial)
    editor.click(7, 0, editor.serial)
    editor.undo()
    editor.click(8, 0, editor.serial)
    assert not editor.future
    editor.undo()
    editor.undo()
    editor.undo()  # nothing left: nothing happens
    assert not editor.edits
    editor.redo()
    editor.redo()
    editor.redo()
    assert [layer for layer, _ in editor.edits.layers] == [6, 8]


def test_edits_are_named_in_order_and_keep_their_names(editor):
    editor.click(6, 0, editor.serial)
    assert editor.name() == "edit 1"
    editor.click(6, 0, editor.serial)
    assert editor.name() == "edit 2"
    editor.undo()
    assert editor.name() == "edit 1"


def test_edits_belong_to_their_checkpoint_and_only_a_sessions_first_follows_the_address(monkeypatch):
    session, query = {}, {"plan": "6n3"}
    monkeypatch.setattr(lab_edits.st, "session_state", session)
    monkeypatch.setattr(lab_edits.st, "query_params", query)
    first = lab_edits.editor("a", [6, 7], 4, "checkpoint")
    assert first.edits.of(6).count == 3
    other = lab_edits.editor("b", [6, 7], 4, "checkpoint")
    assert not other.edits
    assert "plan" not in query
    query["plan"] = "6n1"  # as an old request carries it
    assert lab_edits.editor("a", [6, 7], 4, "checkpoint") is first
    assert query["plan"] == "6n3"


def test_notes_say_what_the_map_cannot(monkeypatch, editor):
    said = []
    monkeypatch.setattr(lab_editor.st, "caption", said.append)
    usage = {6: [0.9, 0.1, 0.0, 0.0], 7: [0.4, 0.3, 0.2, 0.1], 8: [0.4, 0.3, 0.2, 0.1]}
    editor.mark(6, (1, 3), ())
    editor.mark(7, (), (0, 1, 2))
    base = make_plan(usage, per_layer=1)
    lab_editor._notes(editor, make_plan(usage, per_layer=1, edits=editor.edits), base)
    assert "Edited by hand: layers 6, 7." in said[-1]
    assert "Layer 6 keeps 2 instead of 1: so many are pinned." in said[-1]
    assert "Kept with weight 0, as no input's first choice: 3 of layer 6" in said[-1]
    base = make_plan(usage, per_layer=3)
    lab_editor._notes(editor, make_plan(usage, per_layer=3, edits=editor.edits), base)
    assert "Layer 7 keeps 1 instead of 3: so many are not dropped." in said[-1]
