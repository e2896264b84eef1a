"""What routing contributes: the command, whole, on a tiny checkpoint, and what its file says."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from shrp.analysis.routes import ALIKE, ALL, MIXTURE
from shrp.checkpoints import checkpoint
from shrp.errors import DataError, PlanError
from shrp.studies import routes
from studies import routes as command
from studies.route_section import routes_section
from ui.experiments.route_figures import exchanged_marks, told_lines


def row(name, layer, change, interval, **fields):
    told = {"explained": 0.4, "ceiling": 0.7, "effective_experts": 2.5}
    told |= {"p": 0.001, "beyond_length": None, "p_beyond": None}
    about = {
        "checkpoint": name,
        "distilled": True,
        "metric": "accuracy",
        "n": 100,
        "routed": 0.8,
        "flipped": 7,
        "flipped_range": [7, 7],
        "draws": 1,
        "change_range": [change, change],
    }
    about |= {"layer": layer, "moved": 0.5, "score": 0.8 + change, "change": change, "interval": interval}
    matched = None if fields.get("metric") == "pearson" else 0.79
    about |= {
        "matched": matched,
        "matched_change": matched and -0.01,
        "matched_interval": matched and [-0.03, 0.01],
        "matched_range": matched and [-0.01, -0.01],
    }
    groups = {"answer": told, "length": told | {"explained": None}} if isinstance(layer, int) else {}
    return about | {"told": groups} | fields


DRAWN = {"draws": 5, "flipped": 7.4, "flipped_range": [6, 1009], "matched_range": [-0.03, 0.02]}
NUMBER = {"metric": "pearson", "flipped": None, "flipped_range": None}
ROWS = [
    row("sst2-2of3", MIXTURE, 0.0, [-0.02, 0.02], moved=None),
    row("sst2-2of3", ALL, -0.2, [-0.3, -0.1], matched_interval=[-0.03, -0.001], **DRAWN),
    row("sst2-2of3", ALIKE, -0.1, [-0.2, -0.01], **DRAWN),
    row("sst2-2of3", 10, -0.04, [-0.06, -0.02]),
    row("sst2-2of3", 2, 0.0, None),
    row("cola-2of3", ALL, 0.0, None, distilled=False, draws=5, **NUMBER),
    row("cola-2of3", ALIKE, -0.1, [-0.2, -0.05], draws=5, **NUMBER),
    row("cola-2of3", MIXTURE, -0.1, [-0.2, -0.05], moved=None, **NUMBER),
]
"""As a file may hold them: in any order."""


def test_findings_say_what_routes_are_worth_and_what_explains_them():
    worth, told = routes.frames_of(ROWS)
    assert worth["layer"].tolist() == [ALL, ALIKE, MIXTURE, 2, 10, ALL, ALIKE, MIXTURE]
    assert worth["kept"].tolist() == pytest.approx([1, 0.875, 0.875, 1, 0.95, 0.75, 0.875, 1])
    assert np.isnan(worth["flipped"][0])
    assert routes.findings(worth) == [
        "Without routes (the mixture): of classifiers, with answer shares matched, 0 of 1 lose by more than chance; "
        "unmatched, 0 of 1; of models that predict a number, 1 of 1 (cola-2of3).",
        "With wrong routes (all exchanged, the mean of 5 draws): of classifiers, with answer shares matched, 1 of 1 "
        "(sst2-2of3) lose by more than chance; unmatched, 1 of 1 (sst2-2of3); of models that predict a number, 0 of "
        "1.",
        "With other routes of the same answer (likewise, among inputs answered alike): of classifiers, with answer "
        "shares matched, 0 of 1 lose by more than chance; unmatched, 1 of 1 (sst2-2of3); of models that predict a "
        "number, 1 of 1 (cola-2of3).",
    ]
    cola, sst2 = routes.summary(worth, told).to_dict("records")
    assert cola == {
        "checkpoint": "cola-2of3 (not distilled)",
        "as routed": "Pearson correlation 0.800, n = 100",
        "no routes": "0.700 (-0.100, -0.200 to -0.050)",
        "wrong routes": "0.800 (0.000); 50% of choices moved",
        "routes of the same answer": "0.700 (-0.100, -0.200 to -0.050); 50% of choices moved",
        "layers that change it alone": "0 of 0",
        "explained at most": "",
    }
    assert sst2["no routes"] == "0.790 (-0.010, -0.030 to +0.010); unmatched 0.800; 7 answers changed"
    assert sst2["wrong routes"] == (
        "0.790 (-0.010, -0.030 to -0.001); unmatched 0.600; 6 to 1,009 answers changed; 50% of choices moved"
    )
    assert sst2["layers that change it alone"] == "0 of 2"  # with shares matched, as they all are here
    assert sst2["explained at most"] == "answer 40% of 70% (layer 2)"
    half = routes.frames_of(ROWS[1:5])  # without the mixture, as of a run that was stopped
    assert routes.findings(half[0]) == []
    assert routes.summary(*half).empty
    text = routes_section(ROWS)
    assert (
        "| sst2-2of3 | 10 | 50% | accuracy 0.7600 | -0.0400 (-0.0600 to -0.0200) | 0.7900 (-0.010, -0.030 to +0.010) |"
        " 7 of 100 |"
    ) in text
    assert "| 7.4 (6 to 1,009) of 100 |" in text
    assert "| cola-2of3 | mixture |  | Pearson correlation 0.7000 |" in text
    assert "| cola-2of3 (not distilled) | Pearson correlation 0.800, n = 100 |" in text
    marks = exchanged_marks(worth, "n").data
    kept = 100 * 0.79 / 0.8  # of the classifier, with shares matched
    assert [list(trace.x) for trace in marks] == [
        pytest.approx([kept, kept]),
        pytest.approx([100, kept]),
        pytest.approx([87.5, kept]),
        pytest.approx([87.5, kept]),
    ]
    assert [list(trace.y) for trace in told_lines(told, "answer", "n").data] == [pytest.approx([40, 40])]


@pytest.mark.parametrize(
    "broken", [{"layer": 2}, row("a-2of3", "top", 0.1, None), row("a-2of3", 2, 0.1, None, told=[3])]
)
def test_rows_that_cannot_be_read_are_said_in_words(broken):
    with pytest.raises(DataError, match=r"python -m benchmarks\.routes"):
        routes.frames_of([broken])
    assert all(frame.empty for frame in routes.frames_of([]))
    assert routes_section([]) == ""


def test_a_model_that_has_no_score_left_is_told_without_shares():
    worth, told = routes.frames_of([one | {"routed": 0.0} for one in ROWS])
    assert worth["kept"].isna().all()
    assert len(routes.summary(worth, told)) == 2
    assert exchanged_marks(worth, "n").data


def run(*arguments):
    app = typer.Typer()
    app.command()(command.main)
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def test_a_checkpoint_is_measured_layer_by_layer_and_in_all(
    tiny_routed, tiny_tokenizer, tiny_info, tiny_data, tmp_path, monkeypatch
):
    checkpoint.save(tiny_routed(), tiny_tokenizer, tiny_info(), tmp_path / "model")
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    data = tiny_data(24, 1)
    frame = pd.DataFrame({"sentence": [text for (text,) in data.texts], "label": np.asarray(data.labels)})
    frame.to_parquet(tmp_path / "data" / "sst2" / "validation.parquet")
    monkeypatch.setenv("SHRP_DATA_DIR", str(tmp_path / "data"))
    for _ in range(2):  # the second time its rows take the place of the first one's
        found = run(tmp_path / "model", "--out", tmp_path / "routes.json")
        assert found.exit_code == 0, found.output
    with pytest.raises(PlanError, match="one more sst2-2of3"):
        run(tmp_path / "model", tmp_path / "model", "--out", tmp_path / "routes.json")
    checkpoint.save(
        tiny_routed(), tiny_tokenizer, replace(tiny_info(), base_model="another"), tmp_path / "another"
    )
    with pytest.raises(PlanError, match="rows of one base stand in one file"):
        run(tmp_path / "model", tmp_path / "another", "--out", tmp_path / "routes.json")
    with pytest.raises(
        DataError, match=r"routes\.json has rows with base .*, not another: name another file"
    ):
        run(tmp_path / "another", "--out", tmp_path / "routes.json")
    rows = json.loads((tmp_path / "routes.json").read_text())["rows"]
    assert {str(one["layer"]): one["draws"] for one in rows} == {"1": 1, "2": 1, ALL: 5, ALIKE: 5, MIXTURE: 1}
    whole = next(one for one in rows if one["layer"] == ALL)
    assert whole["change_range"][0] < whole["change"] < whole["change_range"][1]
    assert whole["flipped_range"][0] < whole["flipped"] < whole["flipped_range"][1]
    worth, told = routes.frames_of(rows)
    assert set(worth["checkpoint"]) == {"sst2-2of3"}
    assert worth["n"].eq(24).all()
    assert (worth["score"] - worth["routed"]).tolist() == pytest.approx(worth["change"].tolist())
    assert set(told["by"]) == {"class", "answer", "length"}
    assert told["explained"].max() <= 1


def test_a_checkpoint_without_routers_is_refused(tmp_path, tiny_model, tiny_tokenizer, tiny_info):
    checkpoint.save(tiny_model(), tiny_tokenizer, tiny_info(layers=()), tmp_path / "dense")
    with pytest.raises(PlanError, match="no routed layer"):
        run(tmp_path / "dense", "--out", tmp_path / "routes.json")
