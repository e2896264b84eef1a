"""Run the campaign: trials of each part in turn, more of them at every call with the same seed.

Trials that have ended well are kept in a file and left out the next time; those that failed are tried again.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from shrp.files import cache_folder
from tests.campaign import at_once, damage, inputs, trainings
from tests.campaign.world import RIGHT, make
from tests.processes import fork

PARTS = {
    "damaged_checkpoint": (damage.damaged_checkpoint, 3, 20),
    "damaged_zip": (damage.damaged_zip, 2, 20),
    "odd_plan": (damage.odd_plan, 1, 20),
    "tables": (inputs.tables, 2, 60),
    "texts": (inputs.texts, 2, 60),
    "addresses": (inputs.addresses, 3, 240),
    "killed": (trainings.killed, 3, 240),
    "disk": (trainings.disk, 3, 240),
    "job": (trainings.job, 3, 900),
    "threads": (at_once.threads, 2, 120),
    "sessions": (at_once.sessions, 4, 1200),
    "memory": (at_once.memory, 4, 7200),
}
"""By name: `(world, scratch, rng) -> outcomes` of a trial, a share of the time, and the seconds that one may take."""


def outcome(root: Path, part: str, seed: int, number: int) -> dict[str, Any]:
    """Run one trial, which may have several results that are right or refused."""
    began, said, failed, scratch = time.monotonic(), [], "", root / f"trial-{part}-{number}"
    scratch.mkdir()
    try:
        said = PARTS[part][0](root, scratch, random.Random(f"{seed}/{part}/{number}"))
    except Exception as error:
        where = (f"{Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__))
        failed = f"{type(error).__name__}: {str(error)[:1500]} ({' > '.join(where)})"
    shutil.rmtree(scratch, ignore_errors=True)
    right = sum(one.startswith(RIGHT) for one in said)
    found = {"part": part, "trial": number, "right": right, "refused": len(said) - right, "failed": failed}
    found["measured"] = "".join(one.removeprefix(RIGHT) for one in said if one.startswith(RIGHT))
    return found | {"seconds": round(time.monotonic() - began, 2)}


def trials(part: str, seed: int, done: set[int], seconds: float) -> Iterator[dict[str, Any]]:
    """Trials that are not done, for so long, each in a process; one that hangs or ends its process has failed."""
    with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as folder:
        root, end = make(Path(folder)), time.monotonic() + seconds
        for number in (one for one in itertools.count() if one not in done):
            if time.monotonic() > end:
                return
            file, most = root / f"{number}.json", PARTS[part][2]

            def run(number: int = number, file: Path = file) -> None:
                os.setsid()  # what it starts ends with it
                file.write_text(json.dumps(outcome(root, part, seed, number)))

            process = fork(run, root / "stderr")
            process.join(most)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
            lost = {"right": 0, "refused": 0, "failed": "its process ended", "seconds": float(most)}
            yield json.loads(file.read_text()) if file.exists() else {"part": part, "trial": number} | lost


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all; each part has its share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; repeat for several")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    asked = parser.parse_args()
    file = cache_folder() / "campaign" / f"seed-{asked.seed}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = map(json.loads, file.read_text().splitlines() if file.exists() else ())
    found = {(one["part"], one["trial"]): one for one in kept}  # of one that was tried again, the last
    shares = {name: PARTS[name][1] for name in asked.part or PARTS}
    for name, share in shares.items():
        done = {number for (part, number), one in found.items() if part == name and not one["failed"]}
        for one in trials(name, asked.seed, done, 60 * asked.minutes * share / sum(shares.values())):
            found[name, one["trial"]] = one
            with file.open("a") as out:
                out.write(json.dumps(one) + "\n")
    rows = pd.DataFrame(found.values())
    said = [f"{one['part']} {one['trial']}: {told}" for one in found.values() if (told := one["failed"] or one.get("measured"))]
    columns = {"trials": ("trial", "size"), "right": ("right", "sum"), "refused": ("refused", "sum")}
    columns |= {"failed": ("failed", "sum"), "slowest_s": ("seconds", "max")}
    table = rows.assign(failed=rows["failed"] != "").groupby("part", sort=False).agg(**columns)
    if asked.json:
        parts = json.loads(table.reset_index().to_json(orient="records"))
        print(json.dumps({"seed": asked.seed, "file": str(file), "parts": parts, "said": said}))
    else:
        print(table, *said, f"seed {asked.seed}; kept in {file}", sep="\n")


if __name__ == "__main__":
    main()
