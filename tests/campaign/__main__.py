"""Run the campaign: trials of each part in turn, more of them at every call with the same seed.

Trials that have ended well are kept in a file and left out the next time; those that failed are tried again.
"""

import argparse
import json
import sys
from typing import Any

from shrp.files import cache_folder
from tests.campaign import running


def _row(name: str, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """A part's trials in numbers: a trial may stand for several results that were right or refused."""
    failures = [f"trial {one['trial']}: {one['failed']}" for one in trials if one["failed"]]
    found = {"part": name, "trials": len(trials)} | {n: sum(one[n] for one in trials) for n in ("right", "refused")}
    found |= {"failed": len(failures), "slowest_s": max((one["seconds"] for one in trials), default=0.0)}
    return found | {"failures": failures, "notes": [note for one in trials for note in one["notes"]]}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all; each part has its share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=running.PARTS, action="append", help="only this; repeat for several")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    asked = parser.parse_args()
    file = cache_folder() / "campaign" / f"seed-{asked.seed}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = map(json.loads, file.read_text().splitlines() if file.exists() else ())
    found = {(one["part"], one["trial"]): one for one in kept}  # of one that was tried again, the last
    shares = {name: share for name, (_, share, _) in running.PARTS.items() if name in (asked.part or running.PARTS)}
    for name, share in shares.items():
        done = {number for (part, number), one in found.items() if part == name and not one["failed"]}
        for one in running.trials(name, asked.seed, done, 60 * asked.minutes * share / sum(shares.values())):
            found[name, one["trial"]] = one
            with file.open("a") as out:
                out.write(json.dumps(one) + "\n")
            if one["failed"]:
                print(f"{name} {one['trial']}: {one['failed']}", file=sys.stderr)
    rows = [_row(name, [one for (part, _), one in found.items() if part == name]) for name in running.PARTS]
    if asked.json:
        print(json.dumps({"seed": asked.seed, "file": str(file), "parts": rows}))
        return
    columns = ("part", "trials", "right", "refused", "failed", "slowest_s")
    for row in (dict(zip(columns, columns)), *rows):
        print(f"{row['part']:<18}", *(f"{row[name]!s:>9}" for name in columns[1:]))
    for row in rows:
        for line in (*row["notes"], *row["failures"]):
            print(f"{row['part']}: {line}")
    print(f"seed {asked.seed}; kept in {file}")


if __name__ == "__main__":
    main()
