"""The Experiments page: drawn from the studies' files, and what it says without them or with broken ones."""

import json
import re

import pytest

from shrp.studies import experiments, studies
from tests.app.helpers import specs, texts_of, values
from tests.studies.test_experiments import ROWS as EXPERIMENTS
from tests.studies.test_experiments import file_of
from tests.studies.test_routes import ROWS as ROUTES
from tests.studies.test_selections import ROWS as SELECTIONS
from tests.studies.test_studies import ROWS


@pytest.fixture
def page(open_page, tmp_path, monkeypatch):
    def go(files, **query):
        for name, text in files.items():
            (tmp_path / f"{name}.json").write_text(text)
        monkeypatch.setattr(studies, "FILES", tmp_path)
        return open_page("experiments", **query)

    return go


def all_parts(page, files):
    """The page at each of its parts, in order."""
    first = page(files)
    pages = [first, *(page(files, part=name) for name in first.segmented_control(key="part").options[1:])]
    assert not any(at.exception for at in pages)
    return pages


def test_the_table_its_chart_and_the_findings(page):
    at = page({"glue": json.dumps({"rows": ROWS})})
    assert not at.exception
    assert len(specs(at)) == 3  # the table's, its leads', and sizes
    names = {trace["name"] for trace in specs(at)[0]["data"]}
    assert {"SHRP, static, 2 a layer, recovered", "control: layers dropped"} <= names


def test_the_papers_claims_stand_beside_what_was_measured(page):
    at = page({"glue": json.dumps({"rows": ROWS})})
    claimed = next(frame.value for frame in at.dataframe if "reported" in frame.value)
    assert set(claimed["converted"]) == {"retain, 6 of 12 layers"}
    row = claimed.iloc[0]
    assert "93% of BERT-base" in row["reported"]
    assert row["measured"] == "94.0% (71.9 to 116.1) at 52.5%, over 2 tasks"
    assert row["best control"].startswith("layers dropped")
    assert row["lead"] == "a tie: -4.0 (-37.7 to +29.7), not paired"
    assert row["over"] == "cola, rte"
    assert (
        "retain, 6 of 12 layers: not measured on all of these: trained random experts, no router, which on cola has "
        "105.0% where SHRP has"
    ) in texts_of(at)


def test_where_a_control_is_not_below_is_told_task_by_task(page):
    at = page({"glue": json.dumps({"rows": ROWS})})
    (told,) = [frame.value for frame in at.dataframe if "setting" in frame.value]
    assert told["setting"].tolist() == ["cola, retain, 6 of 12 layers", "rte, retain, 6 of 12 layers"]
    assert told["control"][1] == "layers dropped: 97.0% (95.0 to 99.0)"
    assert told["lead"][1] == "no tie: -7.0 (-9.8 to -4.2), not paired"
    assert (
        "Ahead of SHRP's recovered model beyond chance, with SHRP's lead in points: layers dropped on rte at 6 of 12 "
        "layers (retain), -7.0 (-9.8 to -4.2), not paired."
    ) in texts_of(at)
    assert (
        "**On 2 of 2** settings of task, recipe and layers a control keeps at least as much as the best pruned model."
    ) in texts_of(at)


def test_every_share_in_the_table_has_its_ends_and_the_seeds_are_told(page):
    at = page({"glue": json.dumps({"rows": ROWS})})
    table = next(frame.value for frame in at.dataframe if "size" in frame.value and "cola" in frame.value)
    cells = table.set_index("model").loc["SHRP, static, 2 a layer, recovered"]
    assert (cells["cola"], cells["rte"]) == (
        "98.0 (73–123)",
        "90.0 (88–92)",
    )  # of two seeds, and of one
    assert cells["mean"] == pytest.approx(94)
    assert cells["size"] == "52.5 / 69.7"
    assert table.set_index("model").loc["control: no router", ["rte", "mean"]].isna().all()
    caption = next(c.value for c in at.caption if c.value.startswith("Percent of the dense"))
    assert (
        "in brackets the 95% interval over inputs, and over trainings where there are several seeds"
        in caption
    )
    assert "seeds: 1 to 2" in caption
    assert "cola accuracy 0.800 (n = 100)" in caption


def test_without_files_it_says_what_fills_it(page):
    at = page({})
    assert not at.exception
    assert "studies.glue" in texts_of(at) + "".join(code.value for code in at.code)


@pytest.mark.parametrize("text", ["{", '{"rows": [{"task": "cola"}]}'])
def test_a_broken_file_is_named_in_words(page, text):
    at = page({"glue": text})
    assert not at.exception
    assert len(at.error) == 1
    assert "studies.glue" in texts_of(at)


def test_each_experiment_is_drawn_from_its_file(page):
    pages = all_parts(page, {name: file_of(name) for name in experiments.TITLES})
    text = " ".join(map(texts_of, pages))
    for said in (
        "0.65 from uniform (total variation) at the first measurement",
        "kept sets overlap (Jaccard) over 3 seeds by 0.33",
        "above random ones at 2 of 2 budgets",
        "routing takes 1.10 to 1.40 times as long",
        "a collapse, in 1 of 1 seed at 0",
        "layers dropped 40.0% (27.5 to 52.5) at 2 times the table's rates",
    ):
        assert said in text
    drawn = [spec for at in pages for spec in specs(at)]
    assert [spec["layout"]["title"]["text"] for spec in drawn] == [
        "Kept score by learning rate: cola, 11 of 12 layers",
        "Kept score with other experts: cola",
        "What routing costs: time of the routed over the static model",
        "Usage of layer 6: distance from uniform",
        "Collapse and score by the balance loss's weight",
        "Score before and after pruning",
        "Do seeds keep the same experts?",
        "Layer by layer",
        "Score against FLOPs",
    ]
    subtitles = " ".join(spec["layout"]["title"]["subtitle"]["text"] for spec in drawn)
    assert "n = 100" in subtitles
    assert "a &lt;processor&gt;" in subtitles
    for chart in (chart for at in pages for chart in at.get("plotly_chart")):
        assert len(chart.proto.alt) > 20


def test_what_routing_contributes_is_drawn_from_its_file(page):
    at = page({"routes": json.dumps({"rows": ROUTES})}, part="Routes")
    assert not at.exception
    (table,) = [frame.value for frame in at.dataframe]
    assert table["no routes"].tolist()[0] == "0.700 (-0.100, -0.200 to -0.050)"
    assert "0.790 (-0.010, -0.030 to +0.010); unmatched" in table["no routes"][1]
    assert [spec["layout"]["title"]["text"] for spec in specs(at)] == [
        "Other routes, and none",
        "Explained by answer",
    ]
    at.segmented_control(key="told_by").set_value("length").run()
    assert specs(at)[1]["layout"]["title"]["text"] == "Explained by length"
    broken = page({"routes": '{"rows": [{}]}'}, part="Routes")
    assert not broken.exception
    assert "studies.routes" in " ".join(error.value for error in broken.error).replace("\\", "")


def test_the_contents_lead_to_what_is_there(page):
    linked = []
    for at in all_parts(page, {"glue": json.dumps({"rows": ROWS})}):
        found = [text.value for text in at.markdown if text.value.startswith("In this part: ")]
        linked.append({anchor for text in found for anchor in re.findall(r"\]\(#([\w-]+)\)", text)})
        assert linked[-1] <= {heading.anchor for heading in at.header}
    assert linked == [
        {"claims", "glue", "size"},
        set(),
        {"ablation", "rates"},
        {"selection", "matching"},
        {"routes", "overhead"},
        {"layer", "balance", "topk", "sweep"},
    ]
    assert "trained for this table" in texts_of(page({"glue": json.dumps({"rows": ROWS})}))


def test_what_has_not_been_run_is_said_with_its_command(page):
    commands = "\n".join(
        code.value for at in all_parts(page, {"sweep": file_of("sweep")}) for code in at.code
    )
    for name in set(EXPERIMENTS) - {"sweep"}:
        assert f"python -m studies.experiments {name}" in commands
    for name in ("glue", "size_check", "ablation", "selection", "routes"):
        assert f"python -m benchmarks.{name} " in commands
    assert "studies.experiments sweep" not in commands


@pytest.mark.parametrize("text", ["{", '{"rows": [{"task": "cola"}]}'])
def test_a_broken_experiment_leaves_the_others(page, text):
    files = {name: text if name == "topk" else file_of(name) for name in experiments.TITLES}
    at = page(files, part="Training and pruning")
    assert not at.exception
    assert len(at.error) == 1
    assert "studies.experiments topk" in texts_of(at)
    assert len(specs(at)) == 3


def test_the_ablation_and_what_others_reported(page):
    cell = {"score": 0.3, "interval": [0.25, 0.35]}
    rows = [
        {"task": "cola", "variant": variant, "seed": 0, "metric": "matthews", "n": 10, "teacher": 0.4}
        | dict.fromkeys(("routed", "static", "recovered"), cell)
        for variant in ("paper", "retain")
    ]
    files = {"glue": json.dumps({"rows": ROWS}), "ablation": json.dumps({"rows": rows})}
    at = page(files, over="FLOPs")
    assert not at.exception
    size = specs(at)[2]
    recipe = page(files, part="Recipe")
    (ablation,) = specs(recipe)
    stars = next(trace for trace in size["data"] if trace["name"].startswith("as reported"))
    assert stars["text"] == ["SHRP, 11 of 12 layers", "BERT-of-Theseus", "DistilBERT"]
    whole = specs(page(files, over="Whole-model parameters"))[2]
    assert all(values(trace["x"]) == pytest.approx([69.7]) for trace in whole["data"])
    assert "% of the dense model's" in whole["layout"]["xaxis"]["title"]["text"]
    assert "as reported" not in " ".join(trace["name"] for trace in whole["data"])
    assert [trace["name"] for trace in ablation["data"]] == [
        "routed",
        "one expert a layer, not recovered",
        "one expert a layer, recovered",
    ]
    assert ablation["layout"]["title"]["text"].startswith("What each part of the recipe is worth: cola")
    assert "paper keeps 75.0% (62.5 to 87.5), retain keeps 75.0%" in texts_of(recipe)


def test_which_experts_to_keep(page):
    at = page(
        {"glue": json.dumps({"rows": ROWS}), "selection": json.dumps({"rows": SELECTIONS})},
        part="Experts",
        kept="2",
    )
    assert not at.exception
    assert "With 2 a layer and no training on, the share of the routed model's score" in texts_of(at)
    assert "With 1 a layer" not in texts_of(at)
    assert (
        "with 2 a layer: usage keeps 95.0% of the routed model's Matthews correlation of 0.400, fitted gates 92.5%"
        in texts_of(at)
    )
    drawn = next(one for one in specs(at) if "2 experts kept a layer" in one["layout"]["title"]["text"])
    assert [trace["name"] for trace in drawn["data"]] == ["usage", "fitted gates", "random experts"]
    broken = page({"selection": json.dumps({"rows": [{"task": "cola"}]})}, part="Experts")
    assert "benchmarks" in broken.error[-1].value
    assert "write it anew" in broken.error[-1].value


def test_another_encoder_has_its_own_table(page):
    rows = [
        row | {"base": "an encoder", "dense_counts": {"model_params": 109_600_000}}
        for row in ROWS
        if row["task"] == "cola" and row["seed"] == 0
    ]
    at = page({"size": json.dumps({"rows": rows})}, part="Other encoders")
    assert not at.exception
    headings = [heading.value.replace("\\", "") for heading in (*at.header, *at.subheader)]
    assert "Another size: an encoder, 110M parameters" in headings
    spec, leads = specs(at)
    assert leads["layout"]["title"]["text"].startswith("SHRP's lead over its controls: 6 of 12 layers")
    assert spec["layout"]["title"]["text"].startswith("6 of 12 layers converted")
    assert {"control: no router", "SHRP, static, 2 a layer, recovered"} <= {
        trace.get("name") for trace in spec["data"]
    }
    at = page({"size": json.dumps({"rows": [{"base": "an encoder"}]})}, part="Other encoders")
    assert "studies.size_check" in texts_of(at)
