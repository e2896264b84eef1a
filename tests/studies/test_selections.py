"""Which experts to keep: the command, whole, on a tiny checkpoint, and what its file says."""

import json

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from shrp.analysis.importance import ablation
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint
from shrp.data.sources import load_data
from shrp.errors import DataError, PlanError
from shrp.evaluation.evaluate import evaluate
from shrp.evaluation.metrics import ranking
from shrp.pruning import select
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from shrp.studies import selections
from studies import selection
from studies.study_section import selection_section
from ui.experiments.figures import selection_panels


def row(name, per_layer, score, **fields):
    about = {
        "checkpoint": "cola-6of12",
        "task": "cola",
        "depth": "6of12",
        "routed": 0.4,
        "metric": "matthews",
    }
    about |= {"n": 100, "encoder_params": 0.5, "per_layer": per_layer, "selection": name, "score": score}
    return about | {"interval": [score - 0.1, score + 0.1]} | fields


ROWS = [
    row("random", 1, 0.3),
    row("usage", 1, 0.1),
    row("fitted", 1, 0.36, lead=0.65, lead_interval=[0.4, 0.9]),
    row("usage", 2, 0.38),
    row("fitted", 2, 0.37, lead=-0.025, lead_interval=None),
    row("random", 2, 0.3),
]


def test_findings_name_who_is_ahead_by_more_than_chance():
    frame = selections.frame_of(ROWS)
    assert frame["selection"].tolist() == ["usage", "fitted gates", "random experts"] * 2
    one, two, own = selections.findings(frame)
    assert "usage 25.0% (25.0%), fitted gates 90.0% (90.0%), random experts 75.0% (75.0%)" in one
    assert "ahead of usage by more than chance on cola-6of12, behind on none" in one
    assert "behind on none" in two and "on none, behind" in two  # noqa: PT018
    assert own.startswith("cola-6of12 with 1 a layer: usage keeps 25.0%")
    assert "(+65.0 points, +40.0 to +90.0; n = 100)" in own
    text = selection_section(ROWS)
    assert (
        "| cola-6of12 | Matthews correlation 0.400 | 100 | 1 | 50.0% |  | 25.0 (0.0 to 50.0) | 90.0 (65.0 to 115.0)"
        in text
    )


def test_what_was_not_measured_everywhere_is_told_beside_the_same_checkpoints():
    other = [one | {"checkpoint": "sst2-6of12", "score": 0.36} for one in ROWS]
    more = [row("ablation", 1, 0.2, lead=0.25, lead_interval=[0.1, 0.4]), row("random_mean", 2, 0.2)]
    frame = selections.frame_of([*ROWS, *other, *more])
    one, ablated, two, alike, *_ = selections.findings(frame)
    assert "over 2 checkpoints" in one
    assert "ablation" not in one
    assert ablated == (
        "With 1 a layer, on the 1 of these where ablation was measured: usage 25.0% (25.0%), ablation 50.0% (50.0%); "
        "ahead of usage by more than chance on cola-6of12, behind on none."
    )
    assert alike.endswith("random experts 75.0% (75.0%), random experts, weighed alike 50.0% (50.0%).")
    assert "weighed alike" not in two


def test_matched_answer_shares_stand_beside_what_they_change():
    moved = [
        row("usage", 1, 0.34, matched=True, ranking=0.77),
        row("fitted", 1, 0.36, matched=True, ranking=0.78),
    ]
    frame = selections.frame_of([*ROWS, *moved])
    assert frame["matched"].tolist() == [False] * 3 + [True] * 2 + [False] * 3
    (last,) = selections.matched(frame)
    assert selections.overall(frame) == selections.overall(selections.frame_of(ROWS))
    assert last in selections.findings(frame)
    assert last.startswith("cola-6of12 with 1 a layer and the output bias shifted")
    assert (
        "only mix the classes: usage 85.0% instead of 25.0%, fitted gates 90.0% instead of 90.0% of its"
        in last
    )
    text = selection_section([*ROWS, *moved])
    assert "| 100 | 1, shares matched | 50.0% | 0.770 | 85.0 (60.0 to 110.0) | 90.0" in text
    figure = selection_panels(frame[frame["per_layer"] == 1], "n", 1)
    names = {trace.name: trace for trace in figure.data}
    assert [*names][-2:] == ["usage, shares matched", "fitted gates, shares matched"]
    plain, hollow = names["usage"], names["usage, shares matched"]
    assert (plain.marker.symbol, hollow.marker.symbol) == ("circle", "circle-open")
    assert (*plain.x, *hollow.x) == pytest.approx((25.0, 85.0))
    assert plain.y == hollow.y
    assert "hollow" in figure.layout.title.subtitle.text


@pytest.mark.parametrize("broken", [{"task": "cola"}, row("best", 1, 0.3), row("usage", 1, 0.3, routed=0.0)])
def test_rows_that_cannot_be_read_are_said_in_words(broken):
    with pytest.raises(DataError, match=r"python -m benchmarks\.selection"):
        selections.frame_of([broken])
    assert selections.frame_of([]).empty
    assert selection_section([]) == ""


def run(*arguments):
    command = typer.Typer()
    command.command()(selection.main)
    return CliRunner().invoke(command, [str(one) for one in arguments], catch_exceptions=False)


def test_a_checkpoint_is_measured_with_every_selection(
    tiny_routed, tiny_tokenizer, tiny_info, tiny_data, tmp_path, monkeypatch
):
    checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), tmp_path / "model")
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    for split, seed in (("train", 0), ("validation", 1)):
        data = tiny_data(24, seed)
        frame = pd.DataFrame({"sentence": [text for (text,) in data.texts], "label": np.asarray(data.labels)})
        frame.to_parquet(tmp_path / "data" / "sst2" / f"{split}.parquet")
    monkeypatch.setenv("SHRP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(select, "STEPS", 24)
    found = run(tmp_path / "model", "--per-layer", "1,2", "--out", tmp_path / "selection.json")
    assert found.exit_code == 0, found.output
    rows = json.loads((tmp_path / "selection.json").read_text())["rows"]
    assert {(one["per_layer"], one["selection"], one.get("matched", False)) for one in rows} == {
        (m, name, matched)
        for m in (1, 2)
        for name in selections.NAMES
        for matched in (False, True)
        if (m, name) != (1, "random_mean")  # nothing to weigh
    }
    for one in rows:
        assert (one["checkpoint"], one["n"]) == ("sst2-2of3", 24)
        matched = one.get("matched", False)
        assert ("lead" in one) == (one["selection"] in ("gate_norm", "ablation", "fitted"))
        assert ("gain" in one) == (matched and not one["selection"].startswith("random"))
        assert one.get("matched_texts", 24) == 24
        assert ("fitted_texts" in one) == (one["selection"] == "fitted")
        assert one["interval"][0] <= one["score"] <= one["interval"][1]
    of = {(one["per_layer"], one["selection"], one.get("matched", False)): one for one in rows}
    for (m, name, matched), one in of.items():
        assert one["ranking"] == of[m, name, False]["ranking"]  # a threshold says nothing of it
        for change, other in (("lead", (m, "usage", matched)), ("gain", (m, name, False))):
            if change in one:
                assert one[change] * one["routed"] == pytest.approx(one["score"] - of[other]["score"])
    for change in ("lead", "gain"):
        assert any(one.get(change) for one in rows)
    loaded, validation = checkpoint.load(tmp_path / "model"), load_data("glue", "sst2")
    usage = measure_usage(loaded.model, loaded.tokenizer, validation).shares()
    static = prune(loaded.model, make_plan(usage, per_layer=1))
    answers = evaluate(static, loaded.tokenizer, validation)
    assert of[1, "usage", False]["score"] == answers.score
    assert of[1, "usage", False]["ranking"] == ranking(answers.labels, answers.logits)
    assert len(selections.frame_of(rows)) == 22
    without = prune(
        loaded.model,
        make_plan(
            usage,
            per_layer=1,
            selection="ablation",
            scores=ablation(loaded.model, loaded.tokenizer, validation),
        ),
    )
    expected = evaluate(without, loaded.tokenizer, validation).score
    assert of[1, "ablation", False]["score"] == expected
    again = run(tmp_path / "model", "--per-layer", "1,2", "--out", tmp_path / "selection.json")
    assert again.exit_code == 0
    assert json.loads((tmp_path / "selection.json").read_text())["rows"] == rows
    older = [{name: one[name] for name in one if name != "fingerprint"} for one in rows]
    for name, others in (
        ("another.json", [one | {"fingerprint": "another"} for one in rows]),
        ("other.json", of_another := [one | {"routed": one["routed"] + 0.01} for one in older]),
    ):
        (tmp_path / name).write_text(json.dumps({"command": "", "rows": others}))
    for places, out in (
        ([tmp_path / "model"] * 2, "selection.json"),
        ([tmp_path / "model"], "another.json"),
        ([tmp_path / "model"], "other.json"),
    ):
        with pytest.raises(
            PlanError, match=f"is one more sst2-2of3, and {out} has rows of one; name another file"
        ):
            run(*places, "--per-layer", "1", "--out", tmp_path / out)
    assert json.loads((tmp_path / "other.json").read_text())["rows"] == of_another


def test_a_checkpoint_without_routers_is_refused(tmp_path, tiny_model, tiny_tokenizer, tiny_info):
    checkpoint.save(tiny_model(), tiny_tokenizer, tiny_info(layers=()), tmp_path / "dense")
    with pytest.raises(PlanError, match="no routed layer"):
        run(tmp_path / "dense", "--out", tmp_path / "selection.json")
