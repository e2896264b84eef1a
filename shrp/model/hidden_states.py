"""Who hears what a replaced layer returns: records of routing, and a caller who asks for `output_hidden_states`."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import output_capturing

from shrp.model.gates import active_recorders


def hooked(model: PreTrainedModel) -> None:
    """Have transformers put its hooks, which do nothing until they are asked, on a model that others share layers of.

    It puts them there when hidden states are first asked for, and notes that at the model that was asked: two models
    that share a layer would each hook it, and every state of that layer would come twice.
    """
    # No part of transformers' documented interface, as below.
    if install := getattr(output_capturing, "maybe_install_capturing_hooks", None):
        install(model.base_model)


class _Speaker(nn.Module):
    """Says a layer's input and output to transformers' hook for what its own layers return.

    Transformers hooks its layer classes, and would leave a replaced layer out without a word. Its hook looks for a
    collector in the calling thread's context and does nothing where there is none; on this one module of nobody's model
    it leaves those as they are, so that they can be copied and pickled.
    """

    def __init__(self) -> None:
        super().__init__()
        # No part of transformers' documented interface: a later version may lack it (or spell it right).
        for name in ("install_output_capuring_hook", "install_output_capturing_hook"):
            if install := getattr(output_capturing, name, None):
                install(self, "hidden_states", 0)
                return

    def forward(self, hidden_states: Tensor, output: Tensor) -> Tensor:
        """The first layer's input is the first of the hidden states."""
        return output


_speaker = _Speaker()


def tell(layer: int, hidden_states: Tensor, output: Tensor) -> None:
    """Tell what a layer returned, `(B, T, d)`, for what it was given, to whoever records it in this context."""
    for record in active_recorders():
        if record.keep_hidden_states:
            record.hidden_states[layer] = output
    _speaker(hidden_states, output)
