"""Only some slices of the data: every page is of their inputs alone, and links, reports and teachers are too."""

from urllib.parse import parse_qs

import pytest

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints import reference
from shrp.data.slices import only
from shrp.data.sources import load_probe
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.prune import prune
from shrp.pruning.select import plan_from
from tests.app.helpers import texts_of
from ui import data_sources
from ui.differences import below_or_above
from ui.only import ONLY

SST2 = load_probe("sst2")
PART, ROWS = only(SST2, ["negation", "idiom"])
PAGES = ("overview", "expert_usage", "routing", "pruning_lab", "compare")


def pick(at, *names):
    at.sidebar.multiselect(key=ONLY).set_value(list(names)).run()
    assert not at.exception
    return at


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_of_their_inputs_alone(open_page, tiny_checkpoint, page):
    at = pick(open_page(page, tiny_checkpoint), "negation", "idiom")
    said = texts_of(at)
    assert "80 of 480 examples of probe/sst2" in said
    assert "n = 480" not in said
    links = [parse_qs(one.proto.query_string) for one in at.get("page_link") if one.proto.query_string]
    assert all(one[ONLY] == ["negation", "idiom"] for one in links)
    if page == "overview":
        assert "80 of 480" not in texts_of(pick(at))


def test_the_lab_chooses_experts_for_them_and_scores_them_beside_the_teacher(open_page, tiny_checkpoint):
    loaded = checkpoints.load(tiny_checkpoint)
    teacher = evaluate(loaded.model, loaded.tokenizer, SST2)
    reference.write(tiny_checkpoint, {SST2.fingerprint: reference.from_evaluation(teacher, "t")})
    plan = plan_from(measure_usage(loaded.model, loaded.tokenizer, PART), budget=3)
    found = evaluate(prune(loaded.model, plan), loaded.tokenizer, PART)
    at = open_page("pruning_lab", tiny_checkpoint, budget=3)
    at = pick(at, "negation", "idiom")
    said = texts_of(at)
    assert f"accuracy {found.score:.1%}" in said.lower()
    right = (teacher.predictions == teacher.labels)[ROWS].mean()
    gap = below_or_above(found.score - right, "accuracy", "the dense one").replace(" points", "")
    assert gap in said


def test_compare_holds_the_teacher_of_another_checkpoint_against_it(open_page, save_tiny, tiny_model):
    save_tiny("one")
    folder = save_tiny("two")
    loaded = checkpoints.load(folder)
    teacher = evaluate(tiny_model(seed=3), loaded.tokenizer, SST2)
    reference.write(folder, {SST2.fingerprint: reference.from_evaluation(teacher, "t")})
    at = open_page("compare", folder.parent / "one", b="two: dense teacher", only="negation")
    assert not at.exception
    right = teacher.predictions == teacher.labels
    right = right[only(SST2, ["negation"])[1]].mean()
    table = next(t.value for t in at.table if "minus the best" in t.value)
    assert f"{right:.1%}" in set(table["accuracy"])


def test_an_address_that_asks_for_a_slice_in_vain_says_so_of_these_data_alone(
    open_page, save_tiny, tiny_checkpoint
):
    at = open_page("overview", save_tiny("grammar", task="cola"), only="negation")
    assert not at.exception
    assert "asks for only the slice **negation**" in at.warning[0].value
    at.sidebar.selectbox(key="checkpoint").set_value("tiny").run()
    assert not any("asks for only" in one.value for one in at.warning)
    assert "negation" in at.sidebar.multiselect(key=ONLY).options
    assert "n = 480" in texts_of(at)


def test_what_is_picked_stays_on_a_page_that_reads_no_data(open_page, save_tiny, monkeypatch):
    """The hub may not answer, and Results shows nothing of data: it does not wait for it."""
    asked = []
    monkeypatch.setattr(data_sources, "load_glue", lambda task: asked.append(task) or SST2)
    folder = save_tiny("reviews")
    at = open_page("overview", folder, source="hub", only="idiom")
    assert "40 of 480 examples" in texts_of(at)
    asked.clear()
    data_sources._dataset.clear()  # which all sessions share
    at = open_page("results", folder, source="hub")
    assert not at.exception
    assert not asked
    data_sources._dataset.clear()
