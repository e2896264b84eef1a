"""Checkpoints, zips and plans that are damaged: they load exactly right, or are refused in one sentence."""

import io
import json
import random
import shutil
import stat
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from shrp.checkpoints import archive, checkpoint
from shrp.checkpoints.info import discover, read_history
from shrp.model.gates import use_gates
from shrp.pruning.plan import PruningPlan
from tests.campaign.world import EXPERTS, LAYERS, RIGHT, assert_same, load, logits_of, tried

ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2, 10**6, 10**30, 0.5, 1e308, float("nan"), float("inf"), "", "0", "nan", "w1"),
    *("../../etc/passwd", "\ud800", "\0", "a" * 5000, "gelu", [], {}, [[]], [None], {"": None}, [1, "a"], [0] * 3000),
)
_NAMES = ("../x.json", "/x.json", "a\0b.json", "config.json", "CONFIG.JSON", "x.pkl", "big.txt", "dir/", "deep/x.json")
_NAMES += ("__MACOSX/._x", "a" * 300 + ".json", *(f"{i}.txt" for i in range(60)))


def flip(data: bytes, rng: random.Random) -> bytes:
    """Cut, repeat or replace some bytes, often near the beginning, which the rest is read by."""
    kind, found = rng.randrange(5), bytearray(data)
    at = rng.randrange(len(found) or 1)
    if kind < 3:
        again = (b"", found[at : at + rng.randrange(64)] + found[at:], rng.randbytes(9))
        return bytes(found[:at] + again[kind])
    for _ in range(rng.choice((1, 1, 4, 50)) if found else 0):
        found[rng.randrange(min(len(found), 200) if kind == 3 else len(found))] = rng.randrange(256)
    return bytes(found)


def change_json(value: Any, rng: random.Random) -> Any:
    """The same with an entry, anywhere, taken out, renamed, repeated, or replaced by something odd."""
    if rng.random() < 0.1 or not isinstance(value, (dict, list)) or not value:
        return rng.choice(ODD)
    place = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    found, kind = value.copy(), rng.random()
    if kind < 0.15:
        del found[place]
    elif kind < 0.3 and isinstance(found, dict):
        found[rng.choice([*map(str, ODD[:6]), *value])] = found.pop(place)
    elif kind < 0.3:
        found.append(found[place])
    else:
        found[place] = change_json(found[place], rng)
    return found


def _damage(folder: Path, rng: random.Random) -> None:
    """Damage one file of a checkpoint: its bytes, its JSON, the header of its weights, or that it is there."""
    kind = rng.choice(("bytes", "json", "json", "header", "gone"))
    names = {"json": ["config.json"] * 4 + ["tokenizer.json", "tokenizer_config.json"], "header": ["model.safetensors"]}
    file = folder / rng.choice(names.get(kind) or sorted(one.name for one in folder.iterdir()))
    if not file.is_file():
        return
    data = file.read_bytes()
    if kind == "gone":
        file.unlink()
        rng.choice((lambda: None, file.mkdir, lambda: file.symlink_to(file.name), lambda: file.symlink_to("..")))()
    elif kind == "json":
        file.write_text(json.dumps(change_json(json.loads(data), rng)))
    elif kind == "header":
        (size,) = struct.unpack("<Q", data[:8])
        header = json.dumps(change_json(json.loads(data[8 : 8 + size]), rng)).encode()
        claimed = rng.choice([len(header)] * 9 + [0, 2**31, 2**63, len(header) - 1])
        file.write_bytes(struct.pack("<Q", claimed) + header + data[8 + size :])
    else:
        file.write_bytes(flip(data, rng))


def _judge(folder: Path, scratch: Path) -> list[str]:
    """Load a stranger's checkpoint: its weights are the file's, and what it computes is the same once it is saved again."""
    discover(folder.parent)
    tried(lambda: read_history(folder))
    said, loaded = tried(lambda: checkpoint.load(folder))
    if loaded is not None:
        stored, state = load_file(folder / "model.safetensors"), loaded.model.state_dict()
        for name in stored.keys() & state.keys():
            assert torch.equal(state[name].nan_to_num(), stored[name].float().nan_to_num()), f"{name} is not the file's"
        tried(lambda: loaded.prune(per_layer=1))
        said, _ = tried(lambda: loaded.predict([("w1 w2",) * len(loaded.info.task.text_columns)]))  # NaN is refused
        if said == RIGHT and tried(lambda: loaded.save(scratch / "again"))[0] == RIGHT:
            assert_same(logits_of(checkpoint.load(scratch / "again")), logits_of(loaded), "saved and loaded again")
    return [said]


def damaged_checkpoint(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """A checkpoint with one or two files damaged."""
    folder = scratch / "in" / "damaged"
    shutil.copytree(world / "checkpoints" / rng.choice(("sequence", "token", "static")), folder)
    for _ in range(rng.choice((1, 1, 1, 2))):
        with suppress(ValueError, struct.error):  # the second time it may be no JSON any more
            _damage(folder, rng)
    return _judge(folder, scratch)


def damaged_zip(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """A zip of a checkpoint with odd entries, or bytes changed; nothing is written outside its folder."""
    target, made, top = scratch / "in" / "unpacked", io.BytesIO(), rng.choice(("", "a/", "ü €/", "a/b/", "../", "/"))
    target.mkdir(parents=True)
    with zipfile.ZipFile(made, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))) as out:
        for file in sorted((world / "checkpoints" / "sequence").iterdir()):
            out.writestr(top + file.name, file.read_bytes())
        for name in rng.sample(_NAMES, rng.choice((0, 0, 0, 1, 2, 60))):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = rng.choice((0, 0, stat.S_IFLNK, stat.S_IFREG, stat.S_IFIFO)) << 16
            out.writestr(entry, b"0" * (3 * 2**20) if name == "big.txt" else b"{}", zipfile.ZIP_DEFLATED)
    data = made.getvalue()
    kept = len(data) - rng.choice((0, 0, len(data), 600))  # the directory is at the end
    data = data[:kept] + (flip(data[kept:], rng) if kept < len(data) else b"")
    around = lambda: {*world.iterdir(), *scratch.iterdir(), *Path("/").glob("x.json")}  # noqa: E731
    before = around()
    said, _ = tried(lambda: archive.unpack(io.BytesIO(data), target))
    assert around() == before, "written elsewhere"
    assert all(one.is_file() and not one.is_symlink() for one in target.iterdir())
    return _judge(target, scratch) if said == RIGHT else [said]


def odd_plan(world: Path, scratch: Path, rng: random.Random) -> list[str]:
    """A plan file with an entry or bytes changed: pruned by it, a model computes what the plan's gates say."""
    experts = {n: rng.sample(range(EXPERTS), rng.randint(1, EXPERTS)) for n in LAYERS}
    given: Any = {"layers": {str(n): {"experts": e, "weights": [1 / len(e)] * len(e)} for n, e in experts.items()}}
    text = json.dumps(change_json(given, rng) if rng.random() < 0.7 else given)
    text = flip(text.encode(), rng).decode("utf-8", "replace") if rng.random() < 0.2 else text
    loaded = load(world / "checkpoints" / "sequence")
    said, plan = tried(lambda: PruningPlan.from_json(text))
    said, pruned = tried(lambda: loaded.prune(plan)) if plan else (said, None)
    if pruned is not None:
        with use_gates(plan.gates(EXPERTS)):
            expected = logits_of(loaded)
        assert_same(logits_of(pruned), expected, "pruned, not as gated by the plan")
        assert PruningPlan.from_json(json.dumps(plan.to_dict())) == plan
    return [said]
