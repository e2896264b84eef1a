"""Passes through only a part of a model, from known hidden states.

They run stand-ins in a shallow clone, so the original model is not changed, and any task head, mask and family works as
in a whole pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrp.families.families import encoder_layers, family_of
from shrp.families.family import Family, Output
from shrp.model.modules import with_layers


class Skip(nn.Module):
    """Stand-in for a layer that is not run: returns its input."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.family = family

    def forward(self, hidden_states: Tensor, *_: object, **kwargs: object) -> Output:
        """Return `hidden_states` unchanged."""
        return self.family.answer(hidden_states, hidden_states, kwargs)


class _Tap(nn.Module):
    """Runs a layer and keeps its input. It lives for one call, so keeping a result on it is safe."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.input = layer, torch.empty(0)

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Output:
        self.input = hidden_states
        return self.layer(hidden_states, *args, **kwargs)


class _Resume(nn.Module):
    """Stand-in for all layers up to one: returns their known output."""

    def __init__(self, output: Tensor, family: Family) -> None:
        super().__init__()
        self.output, self.family = output, family

    def forward(self, hidden_states: Tensor, *_: object, **kwargs: object) -> Output:
        output = self.output.expand(len(hidden_states), -1, -1)
        return self.family.answer(hidden_states, output, kwargs)


class _Given(nn.Module):
    """Runs the first layer on other hidden states than the embeddings."""

    def __init__(self, layer: nn.Module, hidden_states: Tensor) -> None:
        super().__init__()
        self.layer, self.hidden_states = layer, hidden_states

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Output:
        given = self.hidden_states.expand(len(hidden_states), -1, -1)
        return self.layer(given, *args, **kwargs)


def run_layers(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    start: int,
    stop: int,
    hidden_states: Tensor | None = None,
) -> Tensor:
    """Run the encoder layers from `start` to below `stop`, and nothing above them but the head.

    Args and errors as for `run_from`.

    Returns:
        What enters layer `stop`, `(B, T, d)`; at least one layer lies above, so `stop` is one of the layers.
    """
    return layer_inputs(model, inputs, [stop], start, hidden_states)[stop]


def layer_inputs(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    layers: Collection[int],
    start: int = 0,
    hidden_states: Tensor | None = None,
) -> dict[int, Tensor]:
    """What enters some layers, each `(B, T, d)`, in a pass from layer `start` on that ends below the topmost of them.

    Args and errors as for `run_from`.
    """
    stop = max(layers)
    above = {index: Skip(family_of(model)) for index in range(stop, len(encoder_layers(model)))}
    return run_from(model, inputs, start, hidden_states, replacements=above, watch=layers)[1]


def first_token_logits(model: PreTrainedModel, inputs: Mapping[str, Tensor], hidden_states: Tensor) -> Tensor:
    """The task head's logits `(B, C)` from each input's first token as the top layer leaves it, `(B, d)`.

    The sequence classification heads of all supported families read nothing else (a test checks each of them).
    """
    firsts = {name: values[:, :1] for name, values in inputs.items()}
    logits, _ = run_from(model, firsts, len(encoder_layers(model)), hidden_states.unsqueeze(1))
    return logits


def run_from(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    start: int = 0,
    hidden_states: Tensor | None = None,
    *,
    replacements: Mapping[int, nn.Module] | None = None,
    watch: Collection[int] = (),
) -> tuple[Tensor, dict[int, Tensor]]:
    """Run a model from encoder layer `start` on, with some of its layers replaced.

    Args:
        inputs: `input_ids`, `attention_mask`, ..., each `(B, T)`, as for a whole pass.
        start: first layer to run; 0 is a whole pass, and the number of layers runs the head alone.
        hidden_states: what enters layer `start`, `(B, T, d)`, or `(1, T, d)` for the same in every row; for 0 the
            embeddings of `inputs`, unless given.
        replacements: layer -> the module to run instead.
        watch: layers whose inputs are wanted.

    Returns:
        Logits `(B, C)`, and layer -> input `(B, T, d)` for those watched.

    Raises:
        ValueError: `start` is above 0 and `hidden_states` is missing, or a layer below it is watched, which does not
            run.
    """
    if start > 0 and hidden_states is None:
        raise ValueError("hidden_states must say what enters the start layer.")
    if below := [index for index in watch if index < start]:
        raise ValueError(f"layer {below[0]} does not run from layer {start} on, so nothing enters it.")
    family = family_of(model)
    changed: dict[int, nn.Module] = {index: Skip(family) for index in range(start - 1)}
    if start > 0:
        changed[start - 1] = _Resume(hidden_states, family)
    changed |= {index: layer for index, layer in (replacements or {}).items() if index >= start}
    layers, taps = encoder_layers(model), {}
    for index in watch:
        changed[index] = taps[index] = _Tap(changed.get(index, layers[index]))
    if start == 0 and hidden_states is not None:
        changed[0] = _Given(changed.get(0, layers[0]), hidden_states)
    # If the model's config asked for them, transformers would hook the layers of this short-lived clone every time.
    silent = {"output_hidden_states": False, "output_attentions": False}
    logits = with_layers(model, changed)(**inputs, **silent).logits
    return logits, {index: tap.input for index, tap in taps.items()}
