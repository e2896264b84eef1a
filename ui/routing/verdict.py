"""The headline of the Routing page: the prediction, the word that decides it, and the layer that matters most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from shrp.analysis.attribution.instance import Word
from shrp.analysis.attribution.tokens import Without
from shrp.analysis.explore import Exploration, WhatIf
from shrp.data.tasks import TEXTS, Task
from shrp.phrases import counted
from ui.text import escape, percent, shorten

_LONGEST = 60
"""Characters of a word, or a longer piece, that are shown."""
_TAGS = 5
"""Tagged words that are named at most."""
_LITTLE = 0.005
"""Below this a change of a logit is written as none."""


def named(words: Sequence[Word], place: int, task: Task, *more: str) -> str:
    """A word as Markdown, with its text of a pair, and its place where the same word is there again."""
    word, said = words[place], list(more)
    text = shorten(word.text, _LONGEST)
    if sum(one.part == word.part and shorten(one.text, _LONGEST) == text for one in words) > 1:
        said.insert(0, f"place {place + 1} of {len(words)}")
    if len(task.text_columns) == 2:
        said.insert(0, escape(task.text_columns[word.part]))
    return f"**{escape(text)}**" + (f" ({', '.join(said)})" if said else "")


def headline(e: Exploration, without: Without | None, grid: WhatIf | None, *, routed: bool, worded: bool = True) -> str:
    """The verdict on one sentence, as Markdown."""
    if e.task.name == TEXTS.name:
        parts = ["This model has no task yet, so it predicts nothing"]
        return ". ".join(parts + ([f"The route: {most(grid, 0)}"] if grid else [])) + "."
    if e.task.on_words:
        return _labels(e)
    if e.task.on_spans:
        answer = escape(shorten(e.answer, 2 * _LONGEST))
        return f"Answer: **{answer}**." if answer else "The question leaves no room for the text, so there is no answer."
    answer = escape(e.answer)
    parts, missing = [f"Prediction **{answer}**"], []
    if not e.task.is_regression:
        parts = [f"**{answer}** ({percent(float(e.probabilities[e.prediction]))})"]
    if without is not None:
        parts.append(_word(e, without))
    elif worded:
        missing.append("word")
    if grid is not None:
        parts.append(most(grid, e.prediction))
    elif routed:
        missing.append("layer")
    if missing:
        parts.append(f"turn on *Compute everything* to see which {' and '.join(missing)} matters most")
    return "; ".join(parts) + "."


def _labels(e: Exploration) -> str:
    """How many words are tagged, the first of them, and the word whose label is least sure."""
    read = [one for one in e.labelled_words if one[1] != "-"]
    said = [f"**{counted(len(read), 'word')}** labelled"]
    if "O" in e.task.label_names:
        tagged = [one for one in read if one[1] != "O"]
        said = [f"**{len(tagged)} of {counted(len(read), 'word')}** tagged" + ": " * bool(tagged)]
        said[0] += ", ".join(map(_label, tagged[:_TAGS]))
        said[0] += f" and {len(tagged) - _TAGS} more" * (len(tagged) > _TAGS)
    if read:
        said.append(f"least sure of {_label(min(read, key=lambda one: one[2]))}")
    return "; ".join(said) + "."


def _label(one: tuple[str, str, float]) -> str:
    word, name, share = one
    return f"**{escape(shorten(word, _LONGEST))}** ({escape(name)}, {percent(share)})"


def _word(e: Exploration, without: Without) -> str:
    """What the decisive word does."""
    place = without.decisive
    word = named(without.words, place, e.task)
    if e.task.is_regression:
        value = float(without.outputs[place, 0])
        return f"with {word} masked it would be {value:.3g}"
    if without.margins[place] < 0:
        other = int(without.outputs[place].argmax())
        return f"with {word} masked it would be **{escape(e.task.label_names[other])}**"
    left = percent(float(softmax(without.outputs[place])[e.prediction]))
    if len(without.words) == 1:
        return f"with its one {without.unit} masked it stays {escape(e.answer)} ({left})"
    if not without.weakened:
        return f"masking any one {without.unit} leaves the model at least as sure"
    return f"no {without.unit} alone changes that, {word} matters most ({left} with it masked)"


def most(grid: WhatIf, output: int) -> str:
    """Which layer's choice moves the output most."""
    change = grid.change(output)
    row, expert = np.unravel_index(int(np.abs(change).argmax()), change.shape)
    if abs(change[row, expert]) < _LITTLE:
        return "no layer's choice of expert matters"
    most = f"layer {grid.layers[row]}'s choice of expert matters most"
    if grid.flips()[row, expert]:
        other = grid.task.label_names[int(grid.logits[row, expert].argmax())]
        return f"{most}, where expert {expert} would give **{escape(other)}**"
    some = grid.task.is_regression or grid.flips().any()
    return most if some else f"{most}, though no other choice would change the prediction"
