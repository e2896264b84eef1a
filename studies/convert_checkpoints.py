"""Give checkpoints of earlier versions the model type of their own, in place: `python -m studies.convert_checkpoints`.

Only `config.json` is written. Such folders load in SHRP as they are; transformers took them for plain models.
"""

import json
import sys
from pathlib import Path

from shrp.checkpoints.checkpoint import CONFIG, read_config
from shrp.checkpoints.hub import CLASS_PREFIX, PREFIX
from shrp.files import write_text


def convert(folder: Path) -> None:
    """Convert one folder; one that has its type already, or no converted layers, stays as it is."""
    data, info = read_config(folder)
    if info.config.layers:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        found["model_type"] = PREFIX + data["model_type"]
        found["architectures"] = [CLASS_PREFIX + name for name in data["architectures"]]
        write_text(folder / CONFIG, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        convert(Path(name))
