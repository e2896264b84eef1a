"""Specialised head routing and pruning (SHRP, arXiv 2512.20635) of Transformer encoders.

Names are imported when first used, so that `import shrp` alone stays quick.
"""

from importlib import import_module

_HOMES = {
    "ShrpConfig": "shrp.config",
    "convert_layer": "shrp.convert",
    "record_routing": "shrp.routing",
    "use_gates": "shrp.routing",
    "PruningPlan": "shrp.plan",
    "make_plan": "shrp.plan",
    "load": "shrp.checkpoint",
    "save": "shrp.checkpoint",
    "discover": "shrp.checkpoint",
    "load_data": "shrp.data",
    "measure_usage": "shrp.usage",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'shrp' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
