"""Specialised head routing and pruning (SHRP, arXiv 2512.20635) of Transformer encoders.

What is where, roughly from what knows least to what knows most:

- `errors`, `phrases`, `files`: errors that a person reads, names and figures in sentences, atomic writes.
- `model`, `families`: the method itself (`layers`, `gates`, `convert`), and one adapter per family of encoders.
- `data`, `evaluation`: tasks, texts and batches; scores, paired comparisons, intervals, costs and time.
- `pruning`, `analysis`: plans and their selection, live re-evaluation; usage, knock-outs, patching, attention, attribution.
- `checkpoints`, `results_store`, `export`: models on disk, computed results, ONNX.
- `training`, `cli`: one training loop, recipes that resume; `python -m shrp`.

Names are imported when first used, so that `import shrp` alone stays quick. It also has transformers' auto classes
know SHRP's checkpoints (`checkpoints.hub`).
"""

from importlib import import_module
from typing import TYPE_CHECKING

from shrp.checkpoints.hub import register as _register

if TYPE_CHECKING:  # for editors and type checkers, which run nothing; `X as X` says that a name is given on
    from shrp.analysis.usage import UsageStats as UsageStats
    from shrp.analysis.usage import measure_usage as measure_usage
    from shrp.checkpoints.checkpoint import Checkpoint as Checkpoint
    from shrp.checkpoints.checkpoint import load as load
    from shrp.checkpoints.checkpoint import save as save
    from shrp.checkpoints.info import CheckpointInfo as CheckpointInfo
    from shrp.checkpoints.info import discover as discover
    from shrp.data.sources import load_data as load_data
    from shrp.data.sources import load_file as load_file
    from shrp.data.sources import load_glue as load_glue
    from shrp.data.sources import load_probe as load_probe
    from shrp.data.tasks import Task as Task
    from shrp.data.text_data import TextData as TextData
    from shrp.errors import ShrpError as ShrpError
    from shrp.evaluation.evaluation import Evaluation as Evaluation
    from shrp.export.exported import load_export as load_export
    from shrp.model.config import ShrpConfig as ShrpConfig
    from shrp.model.convert import convert_layer as convert_layer
    from shrp.model.gates import force_experts as force_experts
    from shrp.model.gates import record_routing as record_routing
    from shrp.model.gates import use_gates as use_gates
    from shrp.pruning.plan import PruningPlan as PruningPlan
    from shrp.pruning.plan import make_plan as make_plan

# No name here may be that of a module or package in this folder: once that is imported, `shrp.NAME` is the module, and
# a function of the same name would be had or not by chance.
_HOMES = {
    "Checkpoint": "shrp.checkpoints.checkpoint",
    "CheckpointInfo": "shrp.checkpoints.info",
    "Evaluation": "shrp.evaluation.evaluation",
    "PruningPlan": "shrp.pruning.plan",
    "ShrpConfig": "shrp.model.config",
    "ShrpError": "shrp.errors",
    "Task": "shrp.data.tasks",
    "TextData": "shrp.data.text_data",
    "UsageStats": "shrp.analysis.usage",
    "convert_layer": "shrp.model.convert",
    "discover": "shrp.checkpoints.info",
    "force_experts": "shrp.model.gates",
    "load": "shrp.checkpoints.checkpoint",
    "load_data": "shrp.data.sources",
    "load_export": "shrp.export.exported",
    "load_file": "shrp.data.sources",
    "load_glue": "shrp.data.sources",
    "load_probe": "shrp.data.sources",
    "make_plan": "shrp.pruning.plan",
    "measure_usage": "shrp.analysis.usage",
    "record_routing": "shrp.model.gates",
    "save": "shrp.checkpoints.checkpoint",
    "use_gates": "shrp.model.gates",
}
__all__ = sorted(_HOMES)
__version__: str
_register()


def __getattr__(name: str):
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'shrp' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})


def _version() -> str:
    """The version of what is installed, or of the checkout that this is; `unknown` of a folder copied out of either."""
    from importlib import metadata  # like the others, slower to import than all the rest here

    try:
        return metadata.version("shrp")
    except metadata.PackageNotFoundError:
        import tomllib
        from pathlib import Path

        try:
            file = Path(__file__).parent.parent / "pyproject.toml"
            return tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"]
        except (OSError, ValueError, KeyError):
            return "unknown"
