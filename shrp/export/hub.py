"""What Hugging Face's tools ask of an export beside its graph: `ORTModelForSequenceClassification` of Optimum and
`AutoTokenizer` load the folder with it, and so pipelines serve it.

It describes the model by its family's config, which knows nothing of pruned layers: the graph is the model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shrp.checkpoints.saving import named
from shrp.data.tasks import Task

TOKENIZER_CONFIG = "tokenizer_config.json"


def hub_config(model: PreTrainedModel, task: Task, labels: Sequence[str]) -> dict[str, Any]:
    """The family's config, as JSON-able data; what is no number there is null.

    Args:
        task: what the model answers, by which a pipeline turns logits into probabilities, or leaves them.
        labels: what each of the graph's outputs stands for; none of a regression.
    """
    own = json.dumps(model.config.to_diff_dict(), default=str)
    found = json.loads(own, parse_constant=lambda _: None) | named(model, converted=False)
    found.pop("shrp", None)
    found["problem_type"] = "regression" if task.is_regression else "single_label_classification"
    if labels:
        found["id2label"] = {str(place): name for place, name in enumerate(labels)}
        found["label2id"] = {name: place for place, name in enumerate(labels)}
    return found


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
        "pad_token": padding_token(tokenizer),
        "padding_side": "right",
        "truncation_side": tokenizer.truncation_side,
        "clean_up_tokenization_spaces": False,
    }


def padding_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a batch is padded with: of a tokenizer without such a token its first one, as the mask hides it."""
    return tokenizer.pad_token or tokenizer.convert_ids_to_tokens(0)
