"""Passes through only a part of a model, from known hidden states.

They run in a shallow clone with stand-ins for some layers, so the original model is not changed, and any task head,
mask and family works as in a whole pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import Tensor, nn
from transformers import PreTrainedModel

from shrp.families.families import encoder_layers, family_of
from shrp.families.family import Family, Output
from shrp.model.modules import logits_of, with_layers


class StandIn(nn.Module):
    """Calls a function in an encoder layer's place, with the arguments that the encoder gives its layers."""

    def __init__(self, function: Callable[..., Output]) -> None:
        super().__init__()
        self.function = function
        self.attention_type = ""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Output:
        """Return what the function makes of `hidden_states` `(B, T, d)`."""
        return self.function(hidden_states, *args, **kwargs)


def skipped(family: Family, output: Tensor | None = None) -> StandIn:
    """A stand-in that computes nothing: it returns `output`, `(B or 1, T, d)`, or its input where that is None."""

    def known(hidden_states: Tensor, *_: object, **kwargs: object) -> Output:
        found = hidden_states if output is None else output.expand(len(hidden_states), -1, -1)
        return family.answer(hidden_states, found, kwargs)

    return StandIn(known)


def run_layers(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    start: int,
    stop: int,
    hidden_states: Tensor | None = None,
) -> Tensor:
    """Run the encoder layers from `start` to below `stop`, and nothing above them but the head; args as `run_from`.

    Returns:
        What enters layer `stop`, `(B, T, d)`; there must be such a layer.
    """
    above = {index: skipped(family_of(model)) for index in range(stop, len(encoder_layers(model)))}
    return run_from(model, inputs, start, hidden_states, replacements=above, watch=[stop])[1][stop]


def first_token_logits(model: PreTrainedModel, inputs: Mapping[str, Tensor], hidden_states: Tensor) -> Tensor:
    """The task head's logits `(B, C)` from each input's first token as the top layer leaves it, `(B, d)`.

    For heads that read nothing else, as those of most families do (`Family.reads_all_tokens`).
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
        watch: layers from `start` on whose inputs are wanted.

    Returns:
        Logits `(B, C)`, or of tokens `(B, T, C)`, and layer -> input `(B, T, d)` for those watched.
    """
    family, layers = family_of(model), encoder_layers(model)
    changed: dict[int, nn.Module] = {index: skipped(family) for index in range(start - 1)}
    if start > 0:
        changed[start - 1] = skipped(family, hidden_states)
    changed |= {index: layer for index, layer in (replacements or {}).items() if index >= start}
    entered: dict[int, Tensor] = {}

    def watched(index: int, layer: nn.Module) -> StandIn:
        def run(states: Tensor, *args: object, **kwargs: object) -> Output:
            if start == index == 0 and hidden_states is not None:
                states = hidden_states.expand(len(states), -1, -1)  # instead of the embeddings
            entered[index] = states
            return layer(states, *args, **kwargs)

        return StandIn(run)

    for index in {*watch, *((0,) if start == 0 and hidden_states is not None else ())}:
        changed[index] = watched(index, changed.get(index, layers[index]))
    for index, module in changed.items():
        if isinstance(module, StandIn):  # some encoders ask each layer for it
            module.attention_type = getattr(layers[index], "attention_type", "")
    # If the model's config asked for them, transformers would hook the layers of this short-lived clone every time.
    silent = {"output_hidden_states": False, "output_attentions": False}
    logits = logits_of(with_layers(model, changed)(**inputs, **silent))
    return logits, {index: entered[index] for index in watch}
