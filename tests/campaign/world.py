"""What trials work on, tiny and the same each time; and how a trial says what came out."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from shrp.checkpoints import checkpoint
from shrp.errors import ShrpError
from shrp.evaluation.evaluate import evaluate
from tests import conftest

LAYERS, EXPERTS, RIGHT = (1, 2), conftest.HEADS, "right"
tiny_model, tiny_inputs, tiny_tokenizer, tiny_data, tiny_info = (
    inspect.unwrap(getattr(conftest, f"tiny_{name}"))() for name in ("model", "inputs", "tokenizer", "data", "info")
)
tiny_routed = inspect.unwrap(conftest.tiny_routed)(tiny_model, tiny_inputs)


def make(root: Path) -> Path:
    """Fill a folder with `checkpoints` (`sequence` and `token` are routed, `static` is not), an encoder and tables."""
    usage, folder = {str(layer): [0.4, 0.3, 0.2, 0.1] for layer in LAYERS}, root / "checkpoints"
    for routing in ("sequence", "token"):
        model, info = tiny_routed(routing=routing), tiny_info(routing=routing, usage=usage)
        checkpoint.save(model, tiny_tokenizer, info, folder / routing)
    load(folder / "sequence").prune(per_layer=2).save(folder / "static")
    tiny_model(dropout=0.1).base_model.save_pretrained(root / "encoder")
    tiny_tokenizer.save_pretrained(root / "encoder")
    for name, n, seed in (("train", 48, 0), ("validation", 24, 1)):
        tiny_data(n, seed).to_frame().drop(columns="slice").to_csv(root / f"{name}.csv", index=False)
    return root


load = lru_cache(maxsize=4)(checkpoint.load)


def tried(action: Callable[[], Any]) -> tuple[str, Any]:
    """`RIGHT` and what an action returns, or the sentence of the project's own by which it is refused, and None."""
    try:
        return RIGHT, action()
    except ShrpError as error:
        return sentence(str(error)), None


def sentence(text: str) -> str:
    if not text.strip() or len(text) > 800 or any(odd in text for odd in ("\n", "Traceback", "has no attribute")):
        raise AssertionError(f"refused by {text!r}")
    return text


def logits_of(loaded: checkpoint.Checkpoint) -> np.ndarray:
    return evaluate(loaded.model, loaded.tokenizer, tiny_data(6, seed=5), max_length=32).logits


def assert_same(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Raise AssertionError unless two arrays agree to float32 rounding, NaN for NaN."""
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=what)
