"""Run the campaign: trials of each part in turn, more of them at every call with the same seed.

Trials that have ended well are kept in a file and left out the next time; those that failed are tried again.
"""

import argparse
import json

import pandas as pd

from shrp.files import cache_folder
from tests.campaign import running


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
    rows = pd.DataFrame(found.values())
    said = [f"{one.part} {one.trial}: {line}" for one in rows.itertuples() for line in (*one.notes, one.failed) if line]
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
