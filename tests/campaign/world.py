"""What trials work on, tiny and the same each time; and how a trial says what came out."""

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shrp.checkpoints import checkpoint
from shrp.checkpoints.info import history_text
from shrp.errors import ShrpError
from shrp.evaluation.evaluate import evaluate
from tests import conftest
from tests.app.helpers import HISTORY, SCORES

LAYERS, EXPERTS, RIGHT = (1, 2), conftest.HEADS, "right"
tiny_model, tiny_inputs, tiny_tokenizer, tiny_data, tiny_info = (
    inspect.unwrap(getattr(conftest, f"tiny_{name}"))() for name in ("model", "inputs", "tokenizer", "data", "info")
)
tiny_routed = inspect.unwrap(conftest.tiny_routed)(tiny_model, tiny_inputs)


@dataclass(frozen=True)
class World:
    """A folder of tiny checkpoints, an encoder and tables; trials write below `root` only."""

    root: Path
    notes: list[str] = field(default_factory=list, compare=False)  # what a trial has measured, in words

    @classmethod
    def make(cls, root: Path) -> "World":
        found, usage = cls(root), {str(layer): [0.4, 0.3, 0.2, 0.1] for layer in LAYERS}
        for routing in ("sequence", "token"):
            info = tiny_info(layers=LAYERS, routing=routing, usage=usage, scores=SCORES)
            extra = {checkpoint.HISTORY: history_text(HISTORY)}
            model = tiny_routed(layers=LAYERS, routing=routing)
            checkpoint.save(model, tiny_tokenizer, info, found.folder(routing), extra_files=extra)
        found.loaded.prune(per_layer=2).save(found.folder("static"))
        tiny_model(dropout=0.1).base_model.save_pretrained(root / "encoder")
        tiny_tokenizer.save_pretrained(root / "encoder")
        for name, n, seed in (("train", 48, 0), ("validation", 24, 1)):
            tiny_data(n, seed).to_frame().drop(columns="slice").to_csv(root / f"{name}.csv", index=False)
        return found

    def folder(self, name: str) -> Path:
        """Of a checkpoint: `sequence` or `token` (routed) or `static`."""
        return self.root / "checkpoints" / name

    @cached_property
    def loaded(self) -> checkpoint.Checkpoint:
        return checkpoint.load(self.folder("sequence"))

    def scratch(self, rng: random.Random) -> Path:
        """A new empty folder, deleted after the trial."""
        path = self.root / f"trial-{rng.getrandbits(64):016x}"
        path.mkdir()
        return path


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
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise AssertionError(f"{what}: {found.tolist()!s:.200}, not {expected.tolist()!s:.200}")
