"""The speed benchmark on tiny models, and the page that is written from what it prints."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import studies.contenders as contenders
import studies.throughput as throughput
from shrp.checkpoints import checkpoint as checkpoints
from shrp.errors import DataError
from shrp.families.families import encoder_layers, positions
from shrp.model.convert import expert_layers
from studies import results
from studies.contenders import NaiveExpertLayer, compiled, in_bfloat16, naive, of_checkpoint
from studies.speed_section import live_section, throughput_section

FIELDS = {
    *(
        "geometry",
        "model",
        "batch",
        "tokens",
        "dtype",
        "runtime",
        "median_ms",
        "low_ms",
        "high_ms",
        "repeats",
    ),
    *("speedup_vs_dense", "speedup_vs_dense_alike", "flop_limit"),
}
USAGE = {"1": [0.7, 0.1, 0.1, 0.1], "2": [0.1, 0.2, 0.3, 0.4]}


@pytest.fixture
def folder(tmp_path, tiny_routed, tiny_tokenizer, tiny_info):
    checkpoints.save(tiny_routed(), tiny_tokenizer, tiny_info(usage=USAGE), tmp_path / "all" / "tiny")
    return tmp_path / "all"


def run(*arguments):
    import typer

    app = typer.Typer()
    app.command()(throughput.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_json_object_with_a_row_for_every_model_shape_and_format(folder):
    outcome = run(
        *("--json", "--checkpoints", folder, "--geometry", "tiny", "--runtimes", "pytorch"),
        *("--batch", 1, "--batch", 3, "--tokens", 5, "--repeats", 1, "--quick"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    rows = found["rows"]
    assert all(set(row) == FIELDS for row in rows)
    models = ["dense", "routed", "naive-routed", "static-m1", "static-m2"]
    for dtype in ("float32", "bfloat16"):
        for batch in (1, 3):
            some = [row for row in rows if row["dtype"] == dtype and row["batch"] == batch]
            assert [row["model"] for row in some] == models
            base = next(
                r for r in rows if r["batch"] == batch and r["model"] == "dense" and r["dtype"] == "float32"
            )
            for row in some:
                assert row["low_ms"] <= row["median_ms"] <= row["high_ms"]
                assert row["speedup_vs_dense"] == pytest.approx(
                    base["median_ms"] / row["median_ms"], rel=0.02, abs=0.01
                )
            assert some[0]["speedup_vs_dense_alike"] == 1
    limits = {row["model"]: row["flop_limit"] for row in rows}
    assert limits["dense"] == 1 < limits["naive-routed"] < limits["static-m2"] < limits["static-m1"]
    assert limits["routed"] == pytest.approx(limits["static-m1"], rel=0.05)  # but for the router
    assert found["machine"]["threads"] == torch.get_num_threads()
    public = [version.partition("+")[0] for version in (found["versions"]["torch"], torch.__version__)]
    assert public[0] == public[1]  # a build for GPUs has a suffix in one of them only
    assert found["skipped"] == []


def test_models_can_be_picked_and_what_is_not_there_is_said(folder):
    picked = (
        "--checkpoints",
        folder,
        "--geometry",
        "tiny",
        "--quick",
        "--tokens",
        5,
        "--runtimes",
        "pytorch",
    )
    outcome = run(*picked, "--json", "--models", "static")
    assert {row["model"] for row in json.loads(outcome.stdout)["rows"]} == {"dense", "static-m1", "static-m2"}
    for arguments, said in (
        (("--geometry", "none-such"), "none-such"),
        (("--runtimes", "fortran"), "fortran"),
    ):
        outcome = run("--checkpoints", folder, *arguments)
        assert outcome.exit_code == 2
        assert said in outcome.output


def test_what_fails_in_a_runtime_is_left_out_with_the_reason(tiny_model, tiny_routed, monkeypatch):
    def broken(model):
        def call(**_):
            raise RuntimeError("no compiler here\nmore lines")

        return call

    monkeypatch.setattr(throughput, "compiled", broken)
    models = {"dense": tiny_model(), "static": tiny_model(seed=1), "routed": tiny_routed()}
    rows, skipped = throughput.measure(
        models, None, [(2, 5), (1, 4000)], ("pytorch", "torch.compile", "onnxruntime"), repeats=1, seconds=0
    )
    assert {row["runtime"] for row in rows} == {"pytorch"}
    reasons = {(row["model"], row["runtime"]): row["reason"] for row in skipped}
    assert "no compiler here" in reasons["static", "torch.compile"]
    assert "more lines" not in reasons["static", "torch.compile"]
    assert ("routed", "torch.compile") not in reasons  # not tried
    assert "tokenizer" in reasons["all", "onnxruntime"]
    assert "at most 40 tokens" in reasons["4000 tokens", "all"]


def test_a_family_that_reads_fewer_tokens_than_it_has_positions_is_not_asked_for_more(tiny_model):
    model = tiny_model("mpnet")  # 40 positions, the first of which are not for tokens
    longest = positions(model.config)
    assert longest < 40
    shapes = [(1, longest), (1, longest + 1), (1, 40)]
    rows, skipped = throughput.measure({"dense": model}, None, shapes, ("pytorch",), repeats=1, seconds=0)
    assert {row["tokens"] for row in rows} == {longest}
    assert [(row["model"], row["reason"]) for row in skipped] == [
        (f"{tokens} tokens", f"it reads at most {longest} tokens") for _, tokens in shapes[1:]
    ]


@torch.no_grad()
def test_naive_computes_all_experts_and_gives_the_same(tiny_routed, tiny_inputs):
    model, inputs = tiny_routed(), tiny_inputs()
    slow = naive(model)
    assert all(type(layer) is NaiveExpertLayer for layer in expert_layers(slow).values())
    assert not any(type(layer) is NaiveExpertLayer for layer in encoder_layers(model))
    computed = []
    expert = expert_layers(slow)[1]
    original = expert.expert_outputs
    expert.expert_outputs = lambda *args: computed.append(1) or original(*args)
    torch.testing.assert_close(slow(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=1e-5)
    assert computed == [1]


@torch.no_grad()
def test_formats_share_what_the_models_share_and_leave_the_originals(folder, tiny_inputs):
    models = of_checkpoint(checkpoints.load(folder / "tiny"))
    assert set(models) == {"dense", "routed", "naive-routed", "static-m1", "static-m2"}
    halves = in_bfloat16(models)
    assert {p.dtype for m in halves.values() for p in m.parameters()} == {torch.bfloat16}
    assert {p.dtype for m in models.values() for p in m.parameters()} == {torch.float32}
    first = [
        m.bert.encoder.layer[0].attention.self.query.weight for m in (halves["routed"], halves["static-m1"])
    ]
    assert first[0] is first[1]
    close = halves["routed"](**tiny_inputs()).logits.float() - models["routed"](**tiny_inputs()).logits
    assert close.abs().max() < 0.5
    assert compiled(models["dense"]).bert.encoder.layer[0] is not models["dense"].bert.encoder.layer[0]


def test_bert_base_has_the_depths_of_the_issue(monkeypatch):
    small = {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 60}
    original = contenders.BertConfig
    monkeypatch.setattr(contenders, "BertConfig", lambda **options: original(**options, **small))
    models = contenders.bert_base()
    assert len(encoder_layers(models["distilbert-6"])) == 6
    kinds = {name: len(expert_layers(model)) for name, model in models.items()}
    assert kinds["routed-6of12"] == 6
    assert kinds["naive-routed-11of12"] == 11
    assert kinds["dense"] == kinds["static-6of12-m2"] == kinds["static-11of12-m1"] == 0
    assert encoder_layers(models["static-6of12-m2"])[6].kept == 2
    assert encoder_layers(models["static-11of12-m1"])[11].kept == 1


def test_an_onnx_model_answers_as_the_model_does(folder, tiny_inputs):
    loaded = checkpoints.load(folder / "tiny")
    models = {"static-m1": of_checkpoint(loaded)["static-m1"], "routed": loaded.model}
    inputs = tiny_inputs()
    with contenders.onnx_calls(models, loaded.tokenizer, int8=False) as (calls, reasons):
        assert set(reasons) == {"routed"}
        (logits,) = calls["static-m1"](inputs)
    with torch.no_grad():
        expected = models["static-m1"](**inputs).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def made(**changes):
    row = {
        **{
            "geometry": "g",
            "model": "dense",
            "batch": 8,
            "tokens": 32,
            "dtype": "float32",
            "runtime": "pytorch",
        },
        **{"median_ms": 1234.5, "low_ms": 1200.0, "high_ms": 1300.0, "repeats": 5, "speedup_vs_dense": 1.0},
        **{"speedup_vs_dense_alike": 1.0, "flop_limit": 1.0},
    }
    return row | changes


RESULT = {
    "command": "python -m studies.throughput --json",
    "date": "2026-01-02T03:04+00:00",
    "machine": {
        "cpu": "A CPU",
        "cores": 2,
        "threads": 2,
        "vector_instructions": "AVX2",
        "system": "Linux x86_64",
        "load_before": 0.05,
    },
    "versions": {"torch": "2.9"},
    "rows": [
        made(),
        made(batch=1, median_ms=100.0, low_ms=99.0, high_ms=101.0),
        made(model="static-m1", median_ms=150.0, speedup_vs_dense=8.23, flop_limit=9.07, repeats=12),
        made(
            model="static-m1",
            dtype="int8",
            runtime="onnxruntime",
            speedup_vs_dense=21.5,
            speedup_vs_dense_alike=None,
        ),
    ],
    "skipped": [
        {
            "geometry": "g",
            "model": "dense",
            "runtime": "torch.compile",
            "dtype": "float32",
            "reason": "no g++",
        }
    ],
}


def test_the_speed_section_says_machine_versions_date_command_and_spread():
    text = throughput_section(RESULT)
    for said in (
        "A CPU",
        "2 threads",
        "torch 2.9",
        "2026-01-02",
        RESULT["command"],
        "5 to 12 timed rounds",
        "no g++",
    ):
        assert said in text
    lines = text.splitlines()
    assert (
        "| static-m1 | float32 | pytorch | 9.07× |  | **8.23×** 150 ms (1,200 to 1,300) | 1.00× |" in lines
    )  # no batch of 1 was timed
    assert any(
        line.startswith("| static-m1 | int8 | onnxruntime") and line.endswith("|  |") for line in lines
    )


def test_results_are_written_from_what_is_kept(folder, tmp_path):
    data, out = tmp_path / "data", tmp_path / "results.md"
    data.mkdir()
    results.main(checkpoints=folder, data=data, out=out)
    assert "## Speed" not in out.read_text()
    assert "## tiny" in out.read_text()
    (data / "throughput.json").write_text(json.dumps(RESULT))
    live = {"checkpoint": "tiny", "n": 872, "first_estimate_ratio": 61.0, "exact_ratio": 21.0}
    live |= {"sweep_in_plain_evaluations": 5.5, "plain_ms": 1000.0}
    live |= {"first_estimate_n": 64, "sweep_budgets": 72, "prepare_ms": 550.0}
    (data / "live.json").write_text(json.dumps({"threads": 2, "torch": "2.9", "checkpoints": [live]}))
    results.main(checkpoints=folder, data=data, out=out)
    text = out.read_text()
    assert "## Speed" in text
    assert "| tiny |  | 872 | 61.0× (n = 64) | 21.0× | 5.50 (72 budgets) | 1,000 ms |  |  | 550 ms |" in text
    assert live_section(json.loads((data / "live.json").read_text())) in text


def test_a_folder_that_is_not_there_costs_no_page(folder, tmp_path):
    out, empty = tmp_path / "results.md", tmp_path / "empty"
    out.write_text("kept")
    empty.mkdir()
    for options, said in (
        (
            {"checkpoints": tmp_path / "typo", "data": empty},
            "typo is no folder; name another with --checkpoints",
        ),
        ({"checkpoints": folder, "data": tmp_path / "typo"}, "typo is no folder; name another with --data"),
        ({"checkpoints": empty, "data": empty}, "holds any results"),
    ):
        with pytest.raises(DataError, match=said):
            results.main(**options, out=out)
    assert out.read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("glue", "studies.glue"),
        ("size", "studies.size_check"),
        ("ablation", "studies.ablation"),
        ("throughput", "studies.throughput --json"),
        ("live", "studies.live --json"),
    ],
)
@pytest.mark.parametrize("damage", ["{}", "[]", "{", '{"rows": 3, "checkpoints": 3}'])
def test_a_damaged_file_of_measurements_is_named(folder, tmp_path, name, again, damage):
    (tmp_path / f"{name}.json").write_text(damage)
    with pytest.raises(DataError, match=f"{name}.json is not .* python -m {again}"):
        results.main(checkpoints=folder, data=tmp_path, out=tmp_path / "results.md")
    assert not (tmp_path / "results.md").exists()
