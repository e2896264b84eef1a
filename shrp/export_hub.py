"""What Hugging Face's tools ask of an export beside its graph: `ORTModelForSequenceClassification` of Optimum and
`AutoTokenizer` load the folder with it, and so pipelines serve it.

It describes the model by its family's config, which knows nothing of pruned layers: the graph is the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_CONFIG = "tokenizer_config.json"


def hub_config(model: PreTrainedModel, labels: Sequence[str]) -> dict[str, Any]:
    """The family's config, as JSON-able data but for types.

    Args:
        labels: what each of the graph's outputs stands for; none of a regression.
    """
    named = {"id2label": {str(place): name for place, name in enumerate(labels)}} if labels else {}
    named |= {"label2id": {name: place for place, name in enumerate(labels)}} if labels else {}
    return model.config.to_diff_dict() | {"architectures": [type(model).__name__]} | named


def hub_tokenizer(
    tokenizer: PreTrainedTokenizerBase, max_length: int, inputs: Sequence[str]
) -> dict[str, Any]:
    """The settings of a fast tokenizer that needs nothing but `tokenizer.json`, whichever class this one is of.

    Args:
        max_length: tokens at which it cuts where it is asked to.
        inputs: names of the graph's inputs.
    """
    special = {
        name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
    }
    return special | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": list(inputs),
        "padding_side": "right",
        "truncation_side": tokenizer.truncation_side,
        "clean_up_tokenization_spaces": False,
    }
