"""Converted checkpoints for transformers' `pipeline` and auto classes.

Those are `AutoModelForSequenceClassification`, `...ForTokenClassification` and `...ForQuestionAnswering`. A converted
checkpoint has a model type of its own, `shrp-bert` for a BERT. Without SHRP transformers refuses that type by its name;
as a plain `bert` it would load, with random weights in place of the converted layers.

`import shrp` registers the types without importing transformers, which takes seconds: if it is not imported yet, a
finder on `sys.meta_path` registers them once it is.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

_AUTO = "transformers.models.auto.configuration_auto"
_IGNORED = {
    "cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token", "trust_remote_code",
    "use_safetensors", "low_cpu_mem_usage", "adapter_kwargs", "code_revision", "_commit_hash", "_from_auto", "_from_pipeline",
}
"""Options of transformers that change nothing for a folder of safetensors."""


class _Config:
    """Stands for a family's `config_class` in transformers' mapping, without importing the family."""

    def __init__(self, model_type: str) -> None:
        self.model_type = model_type

    def _made(self) -> Any:
        from transformers.models.auto import modeling_auto as auto

        from shrp.checkpoints.checkpoint import config_class

        made = config_class(self.model_type)
        auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.register(made, ShrpForSequenceClassification, exist_ok=True)
        auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING.register(made, ShrpForTokenClassification, exist_ok=True)
        auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING.register(made, ShrpForQuestionAnswering, exist_ok=True)
        return made

    def __call__(self, **values: Any) -> Any:
        return self._made()(**values)

    def from_dict(self, values: Any, **options: Any) -> Any:
        return self._made().from_dict(values, **options)


class ShrpForSequenceClassification:
    """What the auto class finds for a converted checkpoint: makes it of the family's own class, as `shrp.load` does."""

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        config: Any = None,
        dtype: Any = None,
        device_map: Any = None,
        output_loading_info: bool = False,
        **options: Any,
    ) -> Any:
        """The model of a checkpoint folder, in evaluation mode, with the logits of `shrp.load(folder).model`.

        Args:
            dtype: as a `torch.dtype`; float32 by default and for "auto", whatever the weights are stored as.
            device_map: one device.

        Raises:
            CheckpointError: as `shrp.load`.
            ValueError: an option that is not supported here.
        """
        from shrp.checkpoints.checkpoint import load
        from shrp.checkpoints.info import CLASS_PREFIX

        dtype = dtype or options.pop("torch_dtype", None)
        if unknown := sorted(options.keys() - _IGNORED):
            raise ValueError(f"{', '.join(unknown)}: not supported for a checkpoint of SHRP's; leave it out.")
        if isinstance(device_map, dict):
            device_map = device_map.get("", "auto")
        if device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
            raise ValueError("device_map must name one device for a checkpoint of SHRP's, such as 'cuda'.")
        model = load(folder).model
        if not type(model).__name__.endswith(end := cls.__name__.removeprefix(CLASS_PREFIX)):
            raise ValueError(f"{folder} holds a {type(model).__name__}, not one {end}.")
        if config is not None and config.num_labels != model.config.num_labels:
            raise ValueError(f"{folder} has a head of {model.config.num_labels} outputs, which stays.")
        if dtype not in (None, "auto"):
            model = model.to(dtype)
        if device_map is not None:
            model = model.to(device_map)
        report = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
        return (model, {name: set() for name in report}) if output_loading_info else model

    @classmethod
    def _from_config(cls, config: Any, **_: Any) -> Any:
        raise ValueError(
            f"{type(config).__name__} describes a converted model: load its folder by `from_pretrained`."
        )


class ShrpForTokenClassification(ShrpForSequenceClassification):
    """The same for a model that labels words."""


class ShrpForQuestionAnswering(ShrpForSequenceClassification):
    """The same for a model that marks answers."""


class _AfterImport:
    """A finder that has transformers' auto module of configs imported as ever, and registers right after."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _AUTO or (spec := PathFinder.find_spec(name, path, target)) is None:
            return None
        loader: Any = spec.loader
        run = loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            _register_in(module)

        loader.exec_module = exec_module
        return spec


def _register_in(module: Any) -> None:
    from shrp.checkpoints.info import MODEL_TYPES, PREFIX

    for model_type in MODEL_TYPES:
        module.CONFIG_MAPPING.register(PREFIX + model_type, _Config(model_type), exist_ok=True)


def register() -> None:
    """Register the model types: now if transformers' auto module is imported, and else once it is."""
    if (module := sys.modules.get(_AUTO)) is not None:
        _register_in(module)
    elif _AfterImport not in sys.meta_path:
        sys.meta_path.insert(0, _AfterImport)
