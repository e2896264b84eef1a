import math

import pytest

from shrp.phrases import duration
from ui.text import (
    LONGEST_LABEL,
    NOT_KNOWN,
    axis_names,
    count,
    escape,
    escape_html,
    file_name,
    interval_text,
    percent,
    points,
    points_interval,
    score_text,
    shorten_texts,
    signed,
    with_interval,
)


@pytest.mark.parametrize(
    ("name", "file"),
    [("tiny", "tiny"), ("mine (yours 2)", "mine-yours-2"), ("$(rm -r /)", "rm--r"), ("--", "shrp")],
)
def test_a_name_of_a_file_means_nothing_to_a_shell(name, file):
    assert file_name(name) == file


@pytest.mark.parametrize(
    ("number", "said"),
    [(872, "872"), (999.6, "1000"), (999_950, "1M"), (1.2e12, "1.2T"), (-5740, "-5.74k")],
)
def test_large_numbers_are_short_on_both_sides_of_a_unit(number, said):
    assert count(number) == said


@pytest.mark.parametrize(
    ("write", "given", "said"),
    [
        (interval_text, ((0.3, 0.41), "matthews"), "0.300–0.410"),
        (interval_text, ((-0.2, -0.05), "matthews"), "−0.200 to −0.050"),  # minus signs apart from the dash
        (interval_text, ((-0.0001, 0.31), "pearson"), "0.000–0.310"),
        (interval_text, ((0.886, 0.924), "accuracy"), "88.6–92.4%"),
        (interval_text, ((-0.02, 0.05), "f1"), "−2.0 to 5.0%"),
        (score_text, (-0.012, "matthews"), "−0.012"),
        *((signed, (v, 1), said) for v, said in ((-0.04, "0.0"), (-0.06, "−0.1"), (0.06, "+0.1"))),
        (signed, (math.nan, 2), NOT_KNOWN),
        (points, (-0.0004, "accuracy"), "0.0 points"),
        (points_interval, ((-0.0004, 0.03), "accuracy"), "0.0 to +3.0"),
        *((percent, (share,), said) for share, said in ((0.907, "90.7%"), (math.nan, "–"), (None, "–"))),
        *((duration, (s,), said) for s, said in ((40.4, "40 s"), (700, "11 min 40 s"), (3900, "1 h 5 min"))),
        (with_interval, (0.9, (0.886, 0.924), "accuracy", 8), "accuracy 90.0% (95% CI 88.6–92.4%, n = 8)"),
        (with_interval, (0.58, (0.5, 0.65), "matthews", 8), "Matthews correlation 0.580 (95% CI 0.500–0.650, n = 8)"),
        (with_interval, (math.nan, (math.nan, math.nan), "accuracy", 5), "accuracy – (n = 5)"),
    ],
)
def test_numbers_as_the_app_writes_them(write, given, said):
    assert write(*given) == said


def test_names_beside_a_chart_are_short_safe_and_stay_different():
    long = "a phenomenon whose name goes on and on, "
    found = axis_names(["<b>", long + "one", long + "two", "short"])
    assert found[0] == "&lt;b&gt;"
    assert found[3] == "short"
    assert len(set(found)) == 4
    assert all(len(name) <= LONGEST_LABEL + len(" (2)") for name in found)
    assert len(axis_names(["a b (2)", "a b", "a b"])) == 3


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("a b  c",), "a b c"),
        (("one", "two"), "one / two"),
        (("x" * 30,), "x" * 19 + "…"),
        (("a" * 30, "b" * 30), "a" * 7 + "… / " + "b" * 8 + "…"),
        (("a" * 30, "bb"), "a" * 14 + "… / bb"),
        (("bb", "a" * 30), "bb / " + "a" * 14 + "…"),
    ],
)
def test_of_a_pair_both_texts_have_a_beginning(texts, said):
    assert shorten_texts(texts, 20) == said
    assert len(said) <= 20


def test_escaped_text_has_no_markup_left():
    escaped = escape("**b** [l](http://x) `c` $x$ <i> :smile: -> # _u_")
    assert "**" not in escaped
    assert ":smile:" not in escaped
    assert "->" not in escaped.replace("\\", "")  # it would become an arrow
    assert escape("plain words") == "plain words"
    assert escape_html("<b>&\"'") == "&lt;b&gt;&amp;&#34;&#x27;"
