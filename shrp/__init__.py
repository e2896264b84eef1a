"""Specialised head routing and pruning (SHRP, arXiv 2512.20635) of Transformer encoders.

Names are imported when first used, so that `import shrp` alone stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers, which run nothing; `X as X` says that a name is given on
    from shrp.checkpoint import Checkpoint as Checkpoint
    from shrp.checkpoint import load as load
    from shrp.checkpoint import save as save
    from shrp.checkpoint_info import CheckpointInfo as CheckpointInfo
    from shrp.config import ShrpConfig as ShrpConfig
    from shrp.convert import convert_layer as convert_layer
    from shrp.data import TextData as TextData
    from shrp.data import load_data as load_data
    from shrp.data import load_file as load_file
    from shrp.data import load_glue as load_glue
    from shrp.data import load_probe as load_probe
    from shrp.errors import ShrpError as ShrpError
    from shrp.evaluation import Evaluation as Evaluation
    from shrp.exported import load_export as load_export
    from shrp.folders import discover as discover
    from shrp.plan import PruningPlan as PruningPlan
    from shrp.plan import make_plan as make_plan
    from shrp.routing import force_experts as force_experts
    from shrp.routing import record_routing as record_routing
    from shrp.routing import use_gates as use_gates
    from shrp.tasks import Task as Task
    from shrp.usage import UsageStats as UsageStats
    from shrp.usage import measure_usage as measure_usage

# `evaluate`, `prune`, `convert` and `attention_roles` are left out on purpose: these are modules of the package, and
# once one is imported `shrp.evaluate` is that module. A function of the same name would be had or not by chance.
_HOMES = {
    "Checkpoint": "shrp.checkpoint",
    "CheckpointInfo": "shrp.checkpoint_info",
    "Evaluation": "shrp.evaluation",
    "PruningPlan": "shrp.plan",
    "ShrpConfig": "shrp.config",
    "ShrpError": "shrp.errors",
    "Task": "shrp.tasks",
    "TextData": "shrp.data",
    "UsageStats": "shrp.usage",
    "convert_layer": "shrp.convert",
    "discover": "shrp.folders",
    "force_experts": "shrp.routing",
    "load": "shrp.checkpoint",
    "load_data": "shrp.data",
    "load_export": "shrp.exported",
    "load_file": "shrp.data",
    "load_glue": "shrp.data",
    "load_probe": "shrp.data",
    "make_plan": "shrp.plan",
    "measure_usage": "shrp.usage",
    "record_routing": "shrp.routing",
    "save": "shrp.checkpoint",
    "use_gates": "shrp.routing",
}
__all__ = sorted(_HOMES)
__version__: str


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
