"""Custom slices by words."""

import numpy as np
import pytest

from shrp.data.slices import MOST, REST, TAKEN, only, parse_slices, sliced_by_words
from shrp.data.tasks import TASKS
from shrp.data.text_data import TextData
from shrp.errors import DataError


def data_of(*texts, **parts):
    return TextData(TASKS["sst2"], "mine", tuple((text,) for text in texts), **parts)


def slices_of(rules, *texts):
    return sliced_by_words(data_of(*texts), parse_slices(rules)).slices


def test_lines_are_names_and_words_and_a_line_without_a_name_is_named_by_its_words():
    found = parse_slices("negation:  not,*n't ,not\n\n  but,  at  all \na: b: c\nsmile: :)")
    assert [(one.name, one.words) for one in found] == [
        ("negation", ("not", "*n't")),
        ("but, at all", ("but", "at all")),
        ("a", ("b: c",)),
        ("smile", (":)",)),
    ]
    assert parse_slices(" \n") == ()


def test_words_are_whole_in_either_case_with_stars_for_letters():
    texts = (
        "Not here",
        "nothing, a knot",
        "It isn\N{RIGHT SINGLE QUOTATION MARK}t",
        "it isn't!",
        "one NOT",
        "n't",
    )
    assert slices_of("negation: not, *n't", *texts) == ("negation", REST, *["negation"] * 4)
    assert slices_of("un: un*", "undone", "fun", "Un") == ("un", REST, "un")
    assert slices_of("both: at all", "not at\n all", "at allowed") == ("both", REST)
    assert slices_of("asks: ?", "why?", "why") == ("asks", REST)
    assert slices_of("numbers: 3", "3 of 13", "13") == ("numbers", REST)
    assert slices_of("é: *é*", "caféine", "cafe") == ("é", REST)
    assert slices_of("signs: (.+", "a (.+", "aaa") == ("signs", REST)  # not a pattern


def test_an_input_is_in_the_first_slice_of_which_either_text_has_a_word():
    rules = parse_slices("first: a\nsecond: b")
    pairs = TextData(TASKS["mrpc"], "pairs", (("b", "a"), ("x", "b"), ("x", "ab")), np.array([0, 1, 1]))
    sliced = sliced_by_words(pairs, rules)
    assert sliced.slices == ("first", "second", REST)
    assert (sliced.labels == pairs.labels).all()
    assert slices_of("over: b a", "b") == (REST,)
    apart = sliced_by_words(TextData(TASKS["mrpc"], "p", (("b", "a"),)), parse_slices("x: b a"))
    assert apart.slices == (REST,)  # words in a row are of one text


def test_scores_that_are_stored_of_data_are_found_whatever_slices_they_are_given():
    own = data_of("a", "b", slices=("one", "two"))
    sliced = sliced_by_words(own, parse_slices("x: a"))
    assert sliced.fingerprint != own.fingerprint
    assert sliced.slice_words == "x: a"
    assert sliced.source_fingerprint == own.source_fingerprint == own.fingerprint
    again = sliced_by_words(sliced, parse_slices("y: b"))
    assert (again.slices, again.source_fingerprint) == ((REST, "y"), own.fingerprint)
    part = sliced.subset([0])
    assert part.source_fingerprint == own.subset([0]).fingerprint
    assert part.slice_words == "x: a"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("negation:", "'negation:' is no slice; write a name, a colon and words"),
        (": not", "is no slice"),
        (",", "is no slice"),
        ("x: *", "would be in every text"),
        ("x: *a*b*", "more than 2 stars"),
        ("x: a\nx: b", "two slices named 'x'"),
        *((f"{name}: a", f"'{name}' stands for something else in tables") for name in TAKEN),
        (f"{'long ' * 50}: a", "is longer than 60 characters: give it a shorter one"),
        (", ".join(f"w{i}" for i in range(90)), "60 characters: write a name and a colon before the words"),
        ("\n".join(f"n{i}: w{i}" for i in range(MOST + 1)), f"these are {MOST + 1} slices; at most {MOST}"),
    ],
)
def test_invalid_slices_are_refused(rules, said):
    with pytest.raises(DataError, match=said.replace("*", r"\*")):
        parse_slices(rules)


def test_a_text_without_spaces_takes_no_hours():
    assert slices_of("x: *a*b", "a" * 200_000) == (REST,)  # else the suite hangs here
    assert slices_of("x: * * b", "a" + " " * 20_000, "a b") == (REST, REST)
    assert slices_of("x: * * b", "a " * 10_000) == (REST,)


def test_some_slices_alone_are_data_of_their_own():
    whole = data_of("a", "b", "c", "d", labels=np.array([0, 1, 1, 0]), slices=("x", "y", "x", "z"))
    part, rows = only(whole, ["z", "x"])
    assert rows.tolist() == [0, 2, 3]
    assert (part.name, part.texts) == ("mine, only x, z (3 of 4)", (("a",), ("c",), ("d",)))
    assert (part.labels.tolist(), part.slices) == ([0, 1, 0], ("x", "x", "z"))
    mine = sliced_by_words(whole, parse_slices("first: a, b"))
    part, rows = only(mine, ["first"])
    assert rows.tolist() == [0, 1]
    # What is kept of the whole by its content is not taken for what is of a part.
    assert part.source_fingerprint == whole.subset(rows).fingerprint != mine.source_fingerprint
    many = data_of(*"abcde", slices=tuple("abcde"))
    assert only(many, list("abcde"))[0].name == "mine, only a, b, c, d, e (5 of 5)"
    long = [f"{letter * 100}{end}" for letter in "ab" for end in "12"]
    named = data_of(*"abcd", slices=tuple(long))
    names = {only(named, [long[0], one])[0].name for one in long[1:]}
    assert len(names) == 3  # alike as far as they are told, and not the same data
    assert max(map(len, names)) < 200
    with pytest.raises(DataError, match="no slice 'w'; it has x, y, z"):
        only(whole, ["x", "w"])
    with pytest.raises(DataError, match="has no slices"):
        only(data_of("a"), ["x"])
