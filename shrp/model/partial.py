"""Passes through only the upper part of a model, from hidden states that are known already.

Built from stand-ins in a shallow clone (`with_layers`), so the original model is left alone and any task head,
mask and family works as in a whole pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shrp.families.calling import Calling, Output
from shrp.families.families import encoder_layers, family_of
from shrp.model.layers import DroppedLayer
from shrp.model.replaced import with_layers


class _Tap(nn.Module):
    """Runs a layer and keeps its input. It lives for one call, so keeping a result on it is safe."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.input = layer, torch.empty(0)

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Output:
        self.input = hidden_states
        return self.layer(hidden_states, *args, **kwargs)


class _Resume(nn.Module):
    """Stands for all layers up to one: returns the output that they are known to have."""

    def __init__(self, output: Tensor, calling: Calling) -> None:
        super().__init__()
        self.output, self.calling = output, calling

    def forward(self, hidden_states: Tensor, *_: object, **asked: object) -> Output:
        return self.calling.answer(self.output.expand(len(hidden_states), -1, -1), asked)


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
    calling, stop = family_of(model).calling, max(layers)
    above = {index: DroppedLayer(index, calling) for index in range(stop, len(encoder_layers(model)))}
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
    calling = family_of(model).calling
    changed: dict[int, nn.Module] = {index: DroppedLayer(index, calling) for index in range(start - 1)}
    if start > 0:
        changed[start - 1] = _Resume(hidden_states, calling)
    changed |= {index: layer for index, layer in (replacements or {}).items() if index >= start}
    layers, taps = encoder_layers(model), {}
    for index in watch:
        changed[index] = taps[index] = _Tap(changed.get(index, layers[index]))
    if start == 0 and hidden_states is not None:
        changed[0] = _Given(changed.get(0, layers[0]), hidden_states)
    # Were they asked for in the model's config, this short-lived copy would have its layers hooked anew each time.
    silent = {"output_hidden_states": False, "output_attentions": False}
    logits = with_layers(model, changed)(**inputs, **silent).logits
    return logits, {index: tap.input for index, tap in taps.items()}
