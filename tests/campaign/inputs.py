"""Tables, texts and addresses of odd characters: what is read is what was written, or one sentence says why not."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
from streamlit.testing.v1 import AppTest

from shrp.analysis.attribution.instance import prepare
from shrp.analysis.attribution.tokens import ablate_words
from shrp.data import tabular
from shrp.data.sources import load_file
from tests.browser.steps import PAGES
from tests.campaign.damage import flip
from tests.campaign.world import RIGHT, assert_same, load, sentence, tried
from tests.processes import ROOT
from ui import loaders

_PLAIN = ("w1 w2", 'a "b" c', "x,y;z|t", "tab\tin", "line\nbreak", "cr\rin", " blank ", "e\u0301 ü", "NA", "1", "nan", " ", "")
_LABELS = (
    *(("good", "bad"), (0, 1), (True, False), (" a", "b "), ("é", "E", "e"), (1.0, 2.0), (0.5, 1.5, 2.5), ("1", "one")),
    *((None, "a", "b"), (float("nan"), 1.0), ("\0", "x"), (10**18, 10**18 + 1), ([1], {}), ("", "y")),
)
_KEYS = (
    *("checkpoint", "source", "layer", "expert", "budget", "per_layer", "keep", "select", "plan", "b", "b_plan"),
    *("text", "input", "beside", "tab", "force", "what_if_class", "method", "target", "head", "attention_layer", "lab_tab"),
    *("against", "sweep", "guide", "own", "driven_by", "exchange", "knock_out", "example", "patch", "more", "answers"),
)
_VALUES = (
    *("sequence", "static", "probe", "hub", "own", "true", "0", "1", "3", "-1", "999", "99:99,zz", "1n2p0_2d1", "1:2"),
    *("<script>alert(1)</script>", "../../etc", "w1\nw2", "[]", "nan", "1e400", "w " * 3000, "usage", ""),
)


def _text(rng: random.Random) -> str:
    """1 to 60 characters of ASCII, of Unicode's first plane, or of any, without surrogates."""
    ends = rng.choice(((0, 0x7F), (0, 0xD7FF), (0xE000, 0x10FFFF)))
    return "".join(chr(rng.randint(*ends)) for _ in range(rng.randint(1, 60)))


def _cell(rng: random.Random) -> str:
    return rng.choice((_text(rng), rng.choice(_PLAIN)))


def _judged(judge: Callable[..., str], *given: Any) -> str:
    """What a judge returns for an input, or its error with the input, which the seed alone does not show."""
    try:
        return judge(*given)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error!s:.700}, of {given!r:.700}") from error


def _write(frame: pd.DataFrame, file: Path) -> None:
    if file.suffix == ".parquet":
        frame.to_parquet(file, index=False)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")), newline="")
    else:
        with file.open("w", encoding="utf-8", newline="") as out:
            frame.to_csv(out, index=False, **tabular.csv_options(frame))


def tables(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """20 tables of any kind, with any names, texts and labels; some with bytes changed."""

    def judge(suffix: str, names: list[str], cells: list[str], marks: list[Any], harmed: bool) -> str:
        file = scratch / f"table{suffix}"
        try:
            _write(pd.DataFrame(dict(zip(names, (cells, marks))), dtype=object), file)
        except Exception as error:  # pandas' or pyarrow's own: this can't be such a file
            return f"not written: {type(error).__name__}"
        if harmed:
            file.write_bytes(flip(file.read_bytes(), random.Random(len(cells))))
        for skip in (False, True):
            said, read = tried(partial(load_file, file, None, (names[0],), names[1], skip_incomplete=skip))
            if read is None or harmed:
                continue
            kept = [i for i, cell in enumerate(cells) if cell.strip() and not tabular.is_missing(marks[i])]
            assert skip or len(kept) == len(cells), "a row without a text or a label was read"
            assert [one for (one,) in read.texts] == [cells[i] for i in kept], "other texts"
            pairs = {(str(marks[i]), float(read.labels[row])) for row, i in enumerate(kept)}
            assert len(pairs) == len({mark for mark, _ in pairs}), f"one label, two classes: {pairs}"
        return said

    said = []
    for _ in range(20):
        names = rng.sample(["text", "sentence", "label", "index", "Text ", "1", "", _text(rng), _text(rng)], 2)
        cells, labels = [_cell(rng) for _ in range(rng.randint(1, 12))], rng.choice(_LABELS)
        marks = [labels[i % len(labels)] for i in range(len(cells))]
        said.append(_judged(judge, rng.choice((".csv", ".jsonl", ".parquet")), names, cells, marks, rng.random() < 0.2))
    return said


def texts(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """10 lists of texts of any characters and lengths: in a batch each is answered as it is alone."""
    loaded = load(world / "checkpoints" / "sequence")

    def judge(given: list[str]) -> str:
        said, found = tried(lambda: loaded.predict(given).filter(like="p(").to_numpy())
        for one, row in zip(given, () if found is None else found):
            assert_same(loaded.predict([one]).filter(like="p(").to_numpy()[0], row, f"{one!r:.80} alone")
        told, _ = tried(lambda: ablate_words(prepare(loaded.model, loaded.tokenizer, loaded.info.task, (given[0],)), 1))
        return said if said != RIGHT else told

    drawn = [[_cell(rng) * rng.choice((1, 1, 40)) for _ in range(rng.randint(1, 6))] for _ in range(10)]
    return [_judged(judge, given) for given in drawn]


def addresses(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """3 pages opened with odd parameters: each has a title and no traceback, and the slider is where the address says."""
    loaders.SHIPPED = world / "checkpoints"

    def judge(page: str, query: dict[str, str]) -> str:
        at, where = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120), f"{page}?{urlencode(query)[:300]}"
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

    said = []
    for _ in range(3):
        odd = {key: rng.choice((_text(rng), rng.choice(_VALUES))) for key in rng.sample(_KEYS, rng.randint(0, 5))}
        said.append(_judged(judge, rng.choice(PAGES), {"checkpoint": "sequence", "source": "probe"} | odd))
    return said
