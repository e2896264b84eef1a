"""Every input's route as a table, to be read elsewhere: texts, answer, length, and the expert of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from shrp.analysis.usage import UsageStats
from shrp.data.columns import distinct
from shrp.data.text_data import TextData
from shrp.errors import DataError
from shrp.evaluation.evaluation import named
from shrp.phrases import listed


def route_table(
    stats: UsageStats, data: TextData, answers: Sequence[float] | None, lengths: Sequence[int]
) -> pd.DataFrame:
    """One row an input, in the data's order.

    Args:
        stats: usage on `data`, row by row.
        answers: what the routed model predicts of each input, a class or a number; None where that is not known.
        lengths: of the inputs, in tokens.

    Returns:
        Columns index, the texts, (label), (answer), (correct), (slice), tokens, and for each layer, as for 6, `layer 6`
        (its Top-1 expert; under token routing the one that most of its tokens chose), `layer 6 probability` (the
        router's, of that expert) and `layer 6 margin` (largest less second largest; under Top-k the last taken less
        the next), means over tokens under token routing. Columns in brackets only where they are known.

    Raises:
        DataError: these are of other inputs than each other.
    """
    sizes = {"inputs with usage": stats.n, "texts": len(data), "lengths": len(lengths)}
    sizes |= {} if answers is None else {"answers": len(answers)}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{listed([f'{n} {what}' for what, n in sizes.items()])} don't fit each other.")
    columns: dict[str, Any] = {}
    if data.labels is not None:
        columns["label"] = named(data.task, data.labels)
    if answers is not None:
        columns["answer"] = named(data.task, np.asarray(answers))
        if data.labels is not None and not data.task.is_regression:
            columns["correct"] = np.asarray(answers) == data.labels
    if data.slices is not None:
        columns["slice"] = list(data.slices)
    columns["tokens"] = np.asarray(lengths)
    for layer in stats.layers:
        expert = stats.top1[layer].argmax(1)
        columns[f"layer {layer}"] = expert
        columns[f"layer {layer} probability"] = stats.probs[layer][np.arange(stats.n), expert]
        columns[f"layer {layer} margin"] = stats.margins[layer]
    texts = distinct(data.task.text_columns, ("index", *columns))
    inputs = {name: [text[at] for text in data.texts] for at, name in enumerate(texts)}
    return pd.DataFrame({"index": np.arange(stats.n)} | inputs | columns)
