"""Which tokens a tokenizer adds around a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

_NAMES = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")


def special_mask(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> np.ndarray:
    """Where `ids` are `[CLS]`, `[SEP]` or their like, bool `(T,)`; an unknown word is not one of them."""
    special = {getattr(tokenizer, name, None) for name in _NAMES} - {None}
    return np.isin(np.asarray(ids, dtype=np.int64), list(special))
