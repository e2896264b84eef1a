"""Slices by words, typed in the sidebar, on the pages."""

from collections import Counter
from urllib.parse import parse_qs

from shrp.analysis import usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints import reference
from shrp.data.slices import REST, parse_slices, sliced_by_words
from shrp.data.sources import load_probe
from shrp.evaluation import evaluate as evaluate_module
from shrp.evaluation.evaluate import evaluate
from shrp.pruning.live import LiveEvaluator
from tests.app.helpers import specs, texts_of
from ui.own.slices import SLICES
from ui.teacher import teacher_on

RULES = "negation: not, *n't, never\ncontrast: but"
NAMES = ("negation", "contrast", REST)


def sliced():
    return sliced_by_words(load_probe("sst2"), parse_slices(RULES))


def groups(at):
    return [one for one in at.selectbox(key="group").options if one.startswith("slice: ")]


def test_they_take_the_place_of_the_datas_own_until_the_box_is_emptied(open_page, tiny_checkpoint):
    at = open_page("expert_usage", tiny_checkpoint)
    own = groups(at)
    assert len(own) == len(set(load_probe("sst2").slices))
    at.text_area(key=SLICES).set_value(RULES).run()
    assert not at.exception
    assert groups(at) == [f"slice: {name}" for name in dict.fromkeys(sliced().slices)]
    counts = Counter(sliced().slices)
    assert min(counts[name] for name in NAMES) > 0  # else it is no test of them
    said = ", ".join(f"{name} {counts[name]}" for name in NAMES)
    assert f"Custom slices (n = 480): {said}." in texts_of(at)
    at.text_area(key=SLICES).set_value("negation:").run()
    assert not at.exception
    assert (
        "Custom slices are not in use: 'negation:' is no slice; write a name, a colon and words"
        in texts_of(at)
    )
    assert groups(at) == own
    at.text_area(key=SLICES).set_value("").run()
    assert "Custom slices (" not in texts_of(at)
    assert groups(at) == own


def test_a_link_has_them_and_the_lab_scores_by_them_beside_the_teacher(open_page, tiny_checkpoint):
    loaded, probe = checkpoints.load(tiny_checkpoint), load_probe("sst2")
    found = evaluate(loaded.model, loaded.tokenizer, probe)
    reference.write(tiny_checkpoint, {probe.fingerprint: reference.from_evaluation(found, "t")})
    asked = {"lab_tab": "Where accuracy is lost", "word_slices": RULES}
    at = open_page("pruning_lab", tiny_checkpoint, budget=3, **asked)
    assert not at.exception
    spec = next(s for s in specs(at) if s["layout"]["title"]["text"].endswith("by slice"))
    shown = {label.rpartition(" (n")[0] for label in spec["layout"]["yaxis"]["ticktext"]}
    assert shown == {name.replace("_", " ") for name in NAMES}
    teacher = teacher_on(checkpoints.load(tiny_checkpoint), sliced())
    assert (teacher.score, tuple(teacher.slices)) == (found.score, sliced().slices)
    links = [one.proto for one in at.get("page_link") if one.proto.query_string]
    assert links
    assert all(parse_qs(link.query_string)[SLICES] == [RULES] for link in links)


def test_what_does_not_hang_on_slices_is_not_measured_again(open_page, tiny_checkpoint, monkeypatch, cache):
    at = open_page("pruning_lab", tiny_checkpoint, budget=3)
    assert not at.exception
    said = next(one.value for one in at.markdown if "of 8 experts" in one.value)

    def fail(*_, **__):
        raise AssertionError("it is measured again")

    for where, name in (
        (usage, "measure_usage"),
        (evaluate_module, "evaluate_stream"),
        (LiveEvaluator, "_run"),
    ):
        monkeypatch.setattr(where, name, fail)
    at.text_area(key=SLICES).set_value(RULES).run()
    assert not at.exception
    assert said in [one.value for one in at.markdown]


def test_the_picked_example_stays_as_slices_change(open_page, tiny_checkpoint):
    at = open_page(
        "expert_usage", tiny_checkpoint, layer=2, expert=1, example=7, profile="Attention and its roles"
    )
    assert at.number_input(key="example").value == 7
    at.text_area(key=SLICES).set_value(RULES).run()
    assert not at.exception
    assert at.number_input(key="example").value == 7
