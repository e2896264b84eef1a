"""Inputs made by hypothesis: tables, texts and addresses. What is read is what was written, or one sentence says why not."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import hypothesis
import pandas as pd
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from shrp.analysis.attribution.instance import prepare
from shrp.analysis.attribution.tokens import ablate_words
from shrp.data import tabular
from shrp.data.sources import load_file
from tests.browser.steps import PAGES
from tests.campaign.damage import flip
from tests.campaign.world import RIGHT, World, assert_same, sentence, tried
from ui import loaders

APP = str(Path(__file__).parents[2] / "app.py")
_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
_PLAIN = st.sampled_from(["w1 w2", 'a "b" c', "x,y;z|t", "tab\tin", "line\nbreak", "cr\rin", " blank ", "é ü", "NA", "1", "nan"])
_CELL = st.one_of(_TEXT, _TEXT, _PLAIN, _PLAIN, st.sampled_from(["", " "]))
_LABELS = (
    *(("good", "bad"), (0, 1), ("0", "1"), (True, False), (" a", "b "), ("é", "E", "e"), (1.0, 2.0), (0.5, 1.5, 2.5)),
    *(("1", "one"), (None, "a", "b"), (float("nan"), 1.0), ("\0", "x"), (10**18, 10**18 + 1), ([1], {}), ("", "y")),
)
_NAME = st.one_of(st.sampled_from(["text", "sentence", "label", "index", "Text ", "1", ""]), _TEXT)
_TABLES = st.tuples(
    st.sampled_from((".csv", ".jsonl", ".parquet")),
    st.lists(_NAME, min_size=2, max_size=2, unique=True),
    st.lists(_CELL, min_size=1, max_size=12),
    st.sampled_from(_LABELS),
    st.integers(0, 4),
)
_KEYS = (
    *("checkpoint", "source", "layer", "expert", "budget", "per_layer", "keep", "select", "combine", "plan", "b", "b_plan"),
    *("text", "input", "beside", "tab", "force", "what_if_class", "method", "target", "head", "attention_layer", "lab_tab"),
    *("against", "sweep", "guide", "own", "driven_by", "exchange", "knock_out", "example", "patch", "more", "answers"),
)
_VALUES = st.one_of(
    st.sampled_from(["sequence", "static", "probe", "hub", "own", "true", "0", "1", "-1", "999", "99:99,zz", "1n2p0_2d1"]),
    st.sampled_from(["<script>alert(1)</script>", "../../etc", "w1\nw2", "[]", "nan", "1e400", "w " * 3000, "usage", "1:2"]),
    st.text(st.characters(codec="utf-8"), max_size=30),
)
_ADDRESSES = st.tuples(st.sampled_from(PAGES), st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=5))


def _each(inputs: st.SearchStrategy, rng: random.Random, most: int, judge: Callable[[Any], str]) -> list[str]:
    """Judge at most so many inputs, drawn by the trial's seed; one that fails is told as it is, as shrinking takes minutes."""
    said: list[str] = []
    phases, checks = [hypothesis.Phase.generate], list(hypothesis.HealthCheck)

    @hypothesis.seed(rng.getrandbits(32))
    @hypothesis.settings(max_examples=most, database=None, deadline=None, phases=phases, suppress_health_check=checks)
    @hypothesis.given(inputs)
    def judged(one: Any) -> None:
        try:
            said.append(judge(one))
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error!s:.700}, of {one!r:.700}") from error

    judged()
    return said


def _write(frame: pd.DataFrame, file: Path) -> None:
    if file.suffix == ".parquet":
        frame.to_parquet(file, index=False)
    elif file.suffix == ".jsonl":
        rows = (json.dumps(row, ensure_ascii=len(frame) % 2 == 0) + "\n" for row in frame.to_dict("records"))
        file.write_text("".join(rows), "utf-8", newline="")
    else:
        with file.open("w", encoding="utf-8", newline="") as out:
            frame.to_csv(out, index=False, **tabular.csv_options(frame))


def tables(world: World, rng: random.Random) -> list[str]:
    """20 tables of any kind, with any names, texts and labels; some with bytes changed."""
    scratch = world.scratch(rng)

    def judge(given: tuple[str, list[str], list[str], tuple, int]) -> str:
        suffix, (text, label), cells, labels, harm = given
        marks = [labels[i % len(labels)] for i in range(len(cells))]
        file = scratch / f"table{suffix}"
        try:
            _write(pd.DataFrame({text: cells, label: marks}, dtype=object), file)
        except Exception as error:  # pandas' or pyarrow's own: this can't be such a file
            return f"not written: {type(error).__name__}"
        if harm == 0:
            file.write_bytes(flip(file.read_bytes(), random.Random(len(cells))))
        for skip in (False, True):
            said, read = tried(partial(load_file, file, None, (text,), label, skip_incomplete=skip))
            if read is None or harm == 0:
                continue
            kept = [i for i, cell in enumerate(cells) if cell.strip() and not tabular.is_missing(marks[i])]
            assert skip or len(kept) == len(cells), "a row without a text or a label was read"
            assert [one for (one,) in read.texts] == [cells[i] for i in kept], "other texts"
            pairs = {(str(marks[i]), float(read.labels[row])) for row, i in enumerate(kept)}
            assert len(pairs) == len({mark for mark, _ in pairs}), f"one label, two classes: {pairs}"
        return said

    return _each(_TABLES, rng, 20, judge)


def texts(world: World, rng: random.Random) -> list[str]:
    """10 lists of texts of any characters and lengths: in a batch each is answered as it is alone."""
    loaded = world.loaded

    def judge(given: list[str]) -> str:
        said, found = tried(lambda: loaded.predict(given).filter(like="p(").to_numpy())
        for one, row in zip(given, () if found is None else found):
            assert_same(loaded.predict([one]).filter(like="p(").to_numpy()[0], row, f"{one!r:.80} alone")
        told, _ = tried(lambda: ablate_words(prepare(loaded.model, loaded.tokenizer, loaded.info.task, (given[0],)), 1))
        return said if said != RIGHT else told

    long = st.builds(lambda one, n: one * n, _TEXT, st.integers(1, 300))
    return _each(st.lists(st.one_of(_TEXT, long, _CELL), min_size=1, max_size=6), rng, 10, judge)


def addresses(world: World, rng: random.Random) -> list[str]:
    """3 pages opened with odd parameters: each has a title and no traceback, and the slider is where the address says."""
    loaders.SHIPPED = world.root / "checkpoints"

    def judge(given: tuple[str, dict[str, str]]) -> str:
        page, query = given[0], {"checkpoint": "sequence", "source": "probe"} | given[1]
        at, where = AppTest.from_file(APP, default_timeout=120), f"{page}?{urlencode(query)[:300]}"
        if page != "overview":
            at.switch_page(f"pages/{page}.py")
        at.query_params.update(query)
        at.run()
        assert not at.exception, f"{where}: {[one.message for one in at.exception]}"
        assert at.title, f"{where} has no title"
        slider = [one for one in at.slider if one.key == "budget"]
        if slider and query.get("budget", "") in map(str, range(int(slider[0].min), int(slider[0].max) + 1)):
            assert slider[0].value == int(query["budget"]), where
        return next((sentence(one.value.splitlines()[0]) for one in at.error), RIGHT)

    return _each(_ADDRESSES, rng, 3, judge)
