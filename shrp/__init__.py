"""Specialised head routing and pruning (SHRP, arXiv 2512.20635) of Transformer encoders.

What is where, roughly from what knows least to what knows most:

- `errors`, `phrases`, `progress`, `files`: errors that a person reads, names and figures in sentences, atomic writes.
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

if TYPE_CHECKING:  # for editors and type checkers, which run nothing
    from shrp.analysis.usage import UsageStats, measure_usage
    from shrp.checkpoints.checkpoint import Checkpoint, load, save
    from shrp.checkpoints.info import CheckpointInfo, discover
    from shrp.data.sources import load_data, load_file, load_glue, load_probe
    from shrp.data.tasks import Task
    from shrp.data.text_data import TextData
    from shrp.errors import ShrpError
    from shrp.evaluation.evaluation import Evaluation
    from shrp.export.exported import load_export
    from shrp.model.config import ShrpConfig
    from shrp.model.convert import convert_layer
    from shrp.model.gates import force_experts, record_routing, use_gates
    from shrp.pruning.plan import PruningPlan, make_plan

__all__ = [
    "Checkpoint", "CheckpointInfo", "Evaluation", "PruningPlan", "ShrpConfig", "ShrpError", "Task",
    "TextData", "UsageStats", "convert_layer", "discover", "force_experts", "load", "load_data",
    "load_export", "load_file", "load_glue", "load_probe", "make_plan", "measure_usage", "record_routing",
    "save", "use_gates",
]
# No name here may be that of a module or package in this folder: once that is imported, `shrp.NAME` is the module, and
# a function of the same name would be had or not by chance.
_NAMES = {
    "shrp.analysis.usage": "UsageStats measure_usage",
    "shrp.checkpoints.checkpoint": "Checkpoint load save",
    "shrp.checkpoints.info": "CheckpointInfo discover",
    "shrp.data.sources": "load_data load_file load_glue load_probe",
    "shrp.data.tasks": "Task",
    "shrp.data.text_data": "TextData",
    "shrp.errors": "ShrpError",
    "shrp.evaluation.evaluation": "Evaluation",
    "shrp.export.exported": "load_export",
    "shrp.model.config": "ShrpConfig",
    "shrp.model.convert": "convert_layer",
    "shrp.model.gates": "force_experts record_routing use_gates",
    "shrp.pruning.plan": "PruningPlan make_plan",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
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
    """The version of what is installed; `unknown` of a checkout that is not."""
    from importlib import metadata  # slower to import than all the rest here

    try:
        return metadata.version("shrp")
    except metadata.PackageNotFoundError:
        return "unknown"
