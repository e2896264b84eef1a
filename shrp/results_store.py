"""Keep computed results on disk, for a restarted app and for other processes.

One small safetensors file per result, named by a digest of all that decides it: fingerprints of the checkpoint and of
the data, what was computed, and the version of this format. Numbers only: no text of the data is written, and nothing
that is read is executed. A damaged or foreign file counts as missing. What can't be written is not kept, without an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from shrp.analysis.usage import UsageStats
from shrp.data.text_data import TextData
from shrp.evaluation.evaluate import summarise
from shrp.evaluation.evaluation import Evaluation
from shrp.evaluation.statistics import stored_interval
from shrp.files import CACHE, write_bytes
from shrp.pruning.plan import FittedGates

FORMAT_VERSION = 5
"""Raise it when files change, or when a model's arithmetic does so that kept outputs would be other ones now."""
LIMIT_BYTES = 128 * 2**20
"""Bound on all files together; beyond it those used longest ago are dropped."""
ROUTED = "routed"
"""Stands for the routed model itself where a pruned one is named by its plan's key."""
_BY_LAYER = {"top1": np.int32, "probs": np.float32, "margins": np.float32, "norms": np.float32, "gates": np.float64}
"""Arrays of `UsageStats` by layer, and the types that they are stored as."""
_SUFFIX, _HEADER_BYTES = ".safetensors", 2**20


def unsafe(folder: Path) -> str:
    """Why results in a folder can't be trusted, in words; empty where they can, or there is no such folder yet.

    A folder of one's own in a place like `/tmp` is fine: everybody may write there, but its sticky bit keeps others from
    removing the folder.
    """
    for place in (folder, folder.parent):
        try:
            found = place.lstat()
        except OSError:
            continue
        open_to_all = found.st_mode & stat.S_IWOTH and not stat.S_ISLNK(found.st_mode)
        if open_to_all and (place == folder or not found.st_mode & stat.S_ISVTX):
            return f"everybody may write to {place}; make it your own (chmod o-w), or set {CACHE}"
        if place == folder and hasattr(os, "getuid") and found.st_uid != os.getuid():
            return f"{place} is somebody else's; set {CACHE}"
    return ""


class ResultsStore:
    """Results in one folder, shared by threads and processes; no method raises for what the disk does.

    Args:
        folder: made when a result is first kept; None, or one that others may write to, keeps nothing.
        limit: bytes of all files together.
    """

    def __init__(self, folder: str | os.PathLike | None, limit: int = LIMIT_BYTES) -> None:
        self.folder = None if folder is None else Path(folder) / "results"
        self.limit = limit
        self.problem = unsafe(self.folder) if self.folder else f"there is no home folder; set {CACHE}"
        """Why the latest result could not be kept, in words; empty where it could."""
        if self.problem:
            self.folder = None

    def evaluation(self, checkpoint: str, data: TextData, plan: str) -> Evaluation | None:
        """A kept evaluation with all of its outputs, its rows in the data's order; None where there is none.

        `plan`: `PruningPlan.key()`, or `ROUTED`.
        """
        expected = {"logits": (np.float32, data.output_shape)}
        found = self._read(_key("evaluation", checkpoint, data, plan), expected)
        if found is None:
            return None
        about, tensors = found
        evaluation = summarise(data, np.arange(len(data)), tensors["logits"], False)
        try:
            score = float(np.nan if about["score"] is None else about["score"])
            same = np.isclose(score, evaluation.score, rtol=0, atol=1e-9, equal_nan=True)
            if about["metric"] != evaluation.metric or not same:
                return None  # scored by another definition of the metric
            return replace(evaluation, interval=stored_interval(about))
        except (KeyError, TypeError, ValueError):
            return None

    def keep_evaluation(self, checkpoint: str, data: TextData, plan: str, evaluation: Evaluation) -> None:
        """Keep a complete evaluation; one of some inputs only is not kept."""
        if not evaluation.complete or evaluation.total != len(data):
            return
        about = {name: evaluation.to_dict()[name] for name in ("metric", "score", "interval", "n")}
        logits = np.ascontiguousarray(evaluation.logits, dtype=np.float32)
        self._write(_key("evaluation", checkpoint, data, plan), about, {"logits": logits})

    def usage(
        self, checkpoint: str, data: TextData, layers: int, experts: int, *, norms: bool = False
    ) -> UsageStats | None:
        """Kept routing statistics of so many layers of so many experts; None where there are none.

        `norms`: those with output norms and gates.
        """
        n = len(data)
        each = (layers, n, experts)
        shapes = {
            "layers": (np.int64, (layers,)),
            "top1": (np.int32, each),
            "probs": (np.float32, each),
            "margins": (np.float32, (layers, n)),
            "logits": (np.float32, data.output_shape),
        } | ({"norms": (np.float32, each), "gates": (np.float64, each)} if norms else {})
        found = self._read(_key("usage with norms" if norms else "usage", checkpoint, data), shapes)
        if found is None or found[0].get("unit") not in ("examples", "tokens"):
            return None
        about, tensors = found
        names, tensors["top1"] = tensors["layers"].tolist(), tensors["top1"].astype(np.int64)
        by_layer = {
            name: dict(zip(names, tensors[name], strict=True)) if name in tensors else {} for name in _BY_LAYER
        }
        return UsageStats(data=data.name, unit=about["unit"], logits=tensors["logits"], **by_layer)

    def keep_usage(self, checkpoint: str, data: TextData, stats: UsageStats) -> None:
        """Keep routing statistics of all of the data."""
        tensors = {
            "layers": np.array(stats.layers, dtype=np.int64),
            "logits": stats.logits.astype(np.float32),
        }
        for name, kind in _BY_LAYER.items():
            if by_layer := getattr(stats, name):
                tensors[name] = np.stack([by_layer[layer] for layer in stats.layers]).astype(kind)
        kind = "usage with norms" if stats.norms else "usage"
        self._write(_key(kind, checkpoint, data), {"unit": stats.unit}, tensors)

    def fitted(self, checkpoint: str, data: TextData, layers: int, experts: int) -> FittedGates | None:
        """Kept gates that were fitted on the data; None where there are none. Args as for `usage`."""
        shapes = {
            "layers": (np.int64, (layers,)),
            "n": (np.int64, (1,)),
            "per_layer": (np.float64, (experts, layers, experts)),
            "budget": (np.float64, (layers * experts - layers + 1, layers, experts)),
        }
        found = self._read(_key("fitted gates", checkpoint, data), shapes)
        if found is None:
            return None
        _, tensors = found
        names = tensors["layers"].tolist()
        walks = {
            walk: {least + i: dict(zip(names, gates, strict=True)) for i, gates in enumerate(tensors[walk])}
            for walk, least in (("per_layer", 1), ("budget", layers))
        }
        return FittedGates(data.name, int(tensors["n"][0]), **walks)

    def keep_fitted(self, checkpoint: str, data: TextData, gates: FittedGates) -> None:
        """Keep gates that were fitted on the data."""
        tensors = {"layers": np.array(list(gates.per_layer[1]), dtype=np.int64), "n": np.array([gates.n])}
        for walk in ("per_layer", "budget"):
            sizes = getattr(gates, walk)
            tensors[walk] = np.stack([np.stack(list(sizes[size].values())) for size in sorted(sizes)])
        self._write(_key("fitted gates", checkpoint, data), {}, tensors)

    def _path(self, key: Mapping[str, str]) -> Path:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
        return self.folder / (digest.hexdigest()[:40] + _SUFFIX)

    def _read(
        self, key: Mapping[str, str], expected: Mapping[str, tuple[type, tuple[int, ...]]]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """What is kept under `key`, if it is whole and made of tensors of just these types and shapes."""
        if self.folder is None:
            return None
        file = self._path(key)
        bytes_ = sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in expected.values())
        try:
            found = file.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > _HEADER_BYTES + bytes_:
                return None  # to open a pipe would wait for somebody to write
            with safe_open(file, framework="numpy") as stored:
                about = json.loads((stored.metadata() or {})["shrp"])
                if about["key"] != dict(key) or set(stored.keys()) != set(expected):
                    return None
                tensors = {name: stored.get_tensor(name) for name in expected}
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if any((tensors[name].dtype, tensors[name].shape) != of for name, of in expected.items()):
            return None
        with contextlib.suppress(OSError):  # a folder that is only read from
            os.utime(file)  # used now, so dropped later than others
        return about, tensors

    def _write(
        self, key: Mapping[str, str], about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
    ) -> None:
        """Keep tensors under `key`, all or nothing."""
        if self.folder is None:
            return
        content = save(dict(tensors), {"shrp": json.dumps({"key": dict(key), **about}, sort_keys=True)})
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if len(content) <= self.limit:
                write_bytes(self._path(key), content)
            self._make_room()
            self.problem = ""
        except OSError as error:
            self.problem = f"{self.folder} can't be written: {error.strerror or error}"

    def _make_room(self) -> None:
        """Drop what was used longest ago where there is too much: a tenth more than that, not one at each result."""
        files = []
        for path in self.folder.glob(f"*{_SUFFIX}*"):  # with those of a write that was cut off
            with contextlib.suppress(OSError):  # another process has just dropped it
                found = path.lstat()
                files.append((found.st_mtime_ns, found.st_size, path))
        size = sum(of for _, of, _ in files)
        least = self.limit if size <= self.limit else 0.9 * self.limit
        for _, of, path in sorted(files):
            if size <= least:
                return
            path.unlink(missing_ok=True)
            size -= of


def _key(kind: str, checkpoint: str, data: TextData, plan: str = "") -> dict[str, str]:
    return {
        "version": str(FORMAT_VERSION),
        "kind": kind,
        "checkpoint": checkpoint,
        "data": data.source_fingerprint,
        "plan": plan,
    }
