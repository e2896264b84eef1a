"""The Results page: its verdict follows the picked recipe and depth, its table and questions are those of docs."""

import re

import numpy as np
import pytest

from ui import results as data


@pytest.mark.parametrize(("recipe", "depth"), [("retain", "11of12"), ("paper", "6of12")])
def test_the_verdict_and_the_table_are_of_what_is_picked(open_page, recipe, depth):
    at = open_page("results", recipe=recipe, depth=data.DEPTHS[depth])
    wanted = {"recipe": recipe, "depth": depth, "model": "shrp", "routed": False}
    wanted |= {"fine_tuned_after_pruning": True, "compared": True}
    mine = next(row for row in data.rows("summary") if wanted.items() <= row.items())
    share = f"{100 * mine['share']:.1f}%"
    assert any(re.search(rf"\*\*{re.escape(share)}\*\*", one.value) for one in at.markdown)
    (frame,) = [one.value for one in at.dataframe if "model" in one.value]
    assert frame["mean"].max() == pytest.approx(max(100 * row["share"] for row in data.compared(recipe, depth)))
    assert frame["model"].tolist()[0] == "SHRP"


def test_the_verdict_names_controls_that_are_ahead(open_page, monkeypatch):
    kept = {name: data.rows(name) for name in ("summary", "leads", "published")}
    kept["leads"] = [row | {"interval": [-0.2, -0.1]} for row in kept["leads"]]
    monkeypatch.setattr(data, "rows", kept.__getitem__)
    (said,) = [one.value for one in open_page("results").markdown if "significantly" in one.value]
    assert all(word in said for word in ("better", *(row["name"] for row in kept["leads"])))


def test_an_address_that_asks_for_another_depth_is_told(open_page):
    assert "zzz" in open_page("results", depth="zzz", recipe="paper").warning[0].value
    assert not open_page("results", depth=data.DEPTHS["6of12"]).warning


def test_its_questions_are_the_sections_of_the_results(open_page):
    at = open_page("results")
    titles = [one.label for one in at.expander]
    assert len(titles) >= 8
    assert set(data.questions()) <= set(titles)
    text = (data.DOCS / "results.md").read_text()
    assert all(f"## {title}\n" in text for title in data.questions())
    apart = [re.findall(r"(?:^\|.*\n)+", f"{body}\n", re.MULTILINE) for body in data.questions().values()]
    assert sum(map(len, apart)) == text.count("<!-- table")  # none runs into the next one


@pytest.mark.parametrize("broken", [True, False])
def test_a_broken_file_is_one_sentence_and_so_are_missing_ones(open_page, tmp_path, monkeypatch, broken):
    monkeypatch.setattr(data, "DOCS", tmp_path)
    if broken:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "summary.json").write_text("[1")
    at = open_page("results")
    assert (len(at.error), len(at.info)) == (broken, not broken)
    assert data.questions() == {}


def test_every_point_of_the_chart_is_a_row():
    summary, published = data.rows("summary"), data.rows("published")
    frame = data.points(summary, published, "retain")
    assert set(frame["group"]) == {"SHRP", "controls", data.LITERATURE, data.PAPER}
    others = frame[frame["group"].isin([data.LITERATURE, data.PAPER])]
    assert sorted(others["model"]) == sorted(row["name"] for row in published)
    drawn = {trace.name: trace for trace in data.score_against_size(frame, "11of12").data}
    ours = frame[frame["group"] == "controls"]
    assert (drawn["controls"].marker.opacity == 1).tolist() == (ours["depth"] == "11of12").tolist()
    for group, part in others.groupby("group"):
        # A bar of no length would be a dash.
        assert np.isnan(drawn[group].error_y.array).tolist() == part["low"].isna().tolist()
    assert others["low"].isna().any()
