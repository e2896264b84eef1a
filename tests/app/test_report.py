"""The report as the Overview page makes it, for each kind of checkpoint."""

import html
import json

import pytest

from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.data.sources import load_probe
from shrp.evaluation.evaluate import evaluate
from tests.app.helpers import HISTORY, SCORES, row, upload
from tests.app.test_own_data import zip_of
from tests.ui.report.test_report import EVIL, Elements
from ui.report.page import file_size

SECTIONS = {"facts", "overview", "usage", "curve", "examples", "reproduce", "limits"}


def offered(at):
    """Labels of the buttons that download a report."""
    return [button.label for button in at.get("download_button") if button.key == "download-report"]


def make(at):
    """Press the button; the report's file, its elements and its text."""
    at.button(key="make-report").click().run()
    assert not at.exception
    report = at.session_state["report"]
    content = report.to_html()
    assert report.size == pytest.approx(len(content), rel=0.01)
    assert offered(at) == [f"Download the report ({file_size(report.size)})"]
    file = content.decode()
    found = Elements(file)
    return file, found, " ".join("".join(found.text).split())


@pytest.fixture
def full(save_tiny):
    """A routed checkpoint with scores, controls and a history, and names that look like markup."""
    here = {"data": "probe/sst2", "data_fingerprint": load_probe("sst2").fingerprint}
    return save_tiny(
        "full",
        scores=(
            *SCORES,
            row(EVIL, "static", 0.7, per_layer=2, budget=4),
            row("dense teacher", "teacher", 0.99, **here),
        ),
        history="".join(json.dumps(line) + "\n" for line in HISTORY),
        usage=HISTORY[-1]["usage"],
        training={
            "train_data": "glue/sst2 train",
            "train_examples": 6920,
            "validation_data": "glue/sst2 validation",
            "epochs": 3,
            "config": {"stage2_epochs": 1, "learning_rate": 3e-5, "seed": 7, "order": [2, 1]},
            "teacher": {"epochs": 2, "config": {"learning_rate": 1e-4}},
        },
    )


def test_a_report_of_a_routed_checkpoint_holds_everything(open_page, full):
    at = open_page("overview", full)
    assert len(at.get("download_button")) > 0  # of the page's charts
    assert offered(at) == []
    file, found, said = make(at)
    assert not found.open
    assert set(found.ids) >= SECTIONS
    assert not [tag for tag, attrs in found.tags if "src" in attrs or tag in ("link", "img", "iframe")]
    assert all(attrs["href"].startswith("#") for tag, attrs in found.tags if tag == "a")
    assert file.count("plotly.js v") == 1
    assert EVIL in said
    loaded, data = checkpoints.load(full), load_probe("sst2")
    assert loaded.fingerprint in said
    assert data.fingerprint in said
    result = evaluate(loaded.model, loaded.tokenizer, data)
    assert f"accuracy {result.score:.1%}" in said
    assert f"Accuracy cliff on probe/sst2 (n = {result.n}): {result.score / 0.99:.1%} of the dense" in said
    stats = measure_usage(loaded.model, loaded.tokenizer, data)
    top = stats.layers[-1]
    assert f"layer {top} expert {stats.share(top).argmax()} ({stats.share(top).max():.1%})" in said
    assert "“layers dropped, 5 epochs” (88.5%) is above" in said
    assert "expert 0 took 97% already in stage 1" in said
    assert "--recipe paper --layers 1,2 --routing sequence --top-k 1 --order 2,1 --stage2-epochs 1" in said
    assert "--seed 7 --teacher-epochs 2 --teacher-learning-rate 0.0001" in said
    assert "Slice (12 groups) tells the expert better than chance in" in said
    assert "No routes: with the mixture of all experts in their place, accuracy goes from" in said
    # Costs, layers, scores on two data, history, usage, evenness, what routing goes by, curve, routes of right inputs
    # and of wrong ones.
    assert sum(tag == "figure" for tag, _ in found.tags) == 11
    charts = [attrs for _, attrs in found.tags if attrs.get("role") == "img"]
    assert len(charts) == 11
    assert all(attrs["aria-label"] for attrs in charts)
    wrong = result.to_frame(data.texts).query("not correct")
    surest = wrong.loc[wrong.filter(like="p(").max(axis=1).idxmax()]
    assert surest["sentence"] in said
    assert str(full.parent) not in file
    assert "click to open" not in file


def test_the_command_reads_a_table_of_one_s_own_as_it_is_read_here(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint)
    rows = "".join(
        f"w{i} w{i % 5},{'up' if i % 2 else 'down'},{'a b' if i % 3 else 'c'}\n" for i in range(12)
    )
    upload(at, "table", "mine.csv", f"my words,mood,slice\n{rows}".encode())
    next(box for box in at.selectbox if box.label == "Label column").set_value("mood").run()
    for label, meaning in (("up", "positive"), ("down", "negative")):
        next(box for box in at.selectbox if f"'{label}' means" in box.label).set_value(meaning).run()
    assert not at.exception
    _, _, said = make(at)
    read = "--text-column 'my words' --label-column mood --label-means"
    assert f"shrp evaluate tiny --data YOUR_FILE {read}" in said
    assert "down=negative" in said
    assert "up=positive --slice-column slice" in said
    assert f"shrp sweep tiny --data YOUR_FILE {read}" in said


def test_the_curve_holds_what_was_evaluated_before(open_page, full):
    at = open_page("pruning_lab", full, budget=3)
    at.slider(key="budget").set_value(5).run()
    assert not at.exception
    tried = next(iter(at.session_state["lab-tried"].values()))
    assert tried
    at.switch_page("pages/overview.py").run()
    _, _, said = make(at)
    assert f"settings evaluated: {len(tried)}" in said
    assert "Pareto-best: of the" in said
    assert next(iter(tried.values())).setting.text.split(",")[0] in said


@pytest.mark.parametrize(
    "kind", ["static", "token", "dense", "uniform"], ids=["static", "token routing", "dense", "no router"]
)
def test_every_kind_of_checkpoint_has_a_report(open_page, save_tiny, kind, request):
    if kind == "static":
        folder = request.getfixturevalue("tiny_static_checkpoint")
    elif kind == "token":
        folder = request.getfixturevalue("tiny_token_checkpoint")
    elif kind == "uniform":
        folder = save_tiny("control", control="uniform")
    else:
        folder = request.getfixturevalue("dense_checkpoint")
    _, found, said = make(open_page("overview", folder))
    assert not found.open
    assert set(found.ids) >= SECTIONS
    assert "could not be made" not in said
    assert ("there is no curve" in said) == (kind != "token")
    assert ("real tokens" in said) == (kind == "token")
    assert "Most wrong" in said


@pytest.fixture
def dense_checkpoint(tmp_path, tiny_model, tiny_tokenizer):
    """A fine-tuned model without a converted layer."""
    from shrp.checkpoints.info import CheckpointInfo
    from shrp.data.tasks import TASKS
    from shrp.model.config import ShrpConfig

    info = CheckpointInfo(ShrpConfig(()), TASKS["sst2"], base_model="a tiny one")
    return checkpoints.save(tiny_model("bert"), tiny_tokenizer, info, tmp_path / "checkpoints" / "dense")


def test_an_uploads_commands_name_the_checkpoint_and_not_its_temporary_folder(open_page, full):
    at = open_page("overview", full)
    upload(at, "zip", "mine.zip", zip_of(full))
    _, _, said = make(at)
    name = "full-yours"
    assert f"shrp evaluate {name} --data probe" in said
    assert f"--out {name}" in said
    assert "shrp-checkpoint-" not in said


def test_its_commands_are_those_that_give_what_it_shows(open_page, save_tiny):
    at = open_page("overview", save_tiny("other"))
    _, _, said = make(at)
    assert "shrp usage other --data probe --explained --exchanged" in said
    assert "shrp sweep other --data probe --allocation budget" in said
    assert "shrp prune other --budget 4 --data probe --out pruned" in said  # it carries no usage
    assert "--predictions" not in said
    upload(at, "table", "mine.csv", b"sentence\nw1 w2\nw3\nw4 w5\n")
    assert not at.exception
    _, _, said = make(at)
    assert "shrp evaluate other --data YOUR_FILE --predictions answers.csv" in said
    assert "shrp sweep" not in said  # of what has no labels


def test_its_commands_count_by_the_slices_that_were_typed(open_page, tiny_checkpoint):
    at = open_page("overview", tiny_checkpoint, word_slices="negation: not, *n't\ncontrast: but")
    file, _, said = make(at)
    command = "python -m shrp evaluate tiny --data probe --slice 'negation: not, *n'\"'\"'t' --slice 'contrast: but'"
    assert command in html.unescape(file)
    assert "negation: not, *n't; contrast: but" in said


def test_a_broken_history_costs_the_report_that_part_alone(open_page, tiny_checkpoint):
    (tiny_checkpoint / "history.jsonl").write_text("{nonsense\n")
    _, _, said = make(open_page("overview", tiny_checkpoint))
    assert "This part could not be made" in said
    assert "not readable JSON lines" in said
    assert "Structure of the checkpoint; Top-1 shares" in said
    assert "Top-1 share of each expert" in said


def test_another_checkpoint_is_not_offered_the_first_ones_report(open_page, full, tiny_checkpoint):
    at = open_page("overview", full)
    make(at)
    assert at.button(key="make-report").label == "Make it again"
    at.selectbox(key="checkpoint").set_value("tiny").run()
    assert at.button(key="make-report").label == "Make a report"
    assert offered(at) == []
