"""Would a decoder's routes see the future? `python -m studies.decoders`; what it means is in docs/decoders.md.

Converted layers with random weights and a causal mask read random states. Then the last state is changed, and what earlier
positions return is compared: in a decoder it must not change.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrp.cli.output import print_json
from shrp.model.gates import record_routing
from shrp.model.layers import ExpertLayer
from studies.rows import run

EXAMPLES, TOKENS, HIDDEN, HEADS, LAYERS = 256, 16, 48, 6, 3


class _Causal(ExpertLayer):
    """A converted layer in which a token attends to itself and to those before it."""

    def _attended(self, read: Tensor, *_: object) -> Tensor:
        return F.scaled_dot_product_attention(*self.project(read), is_causal=True)

    def _picks_one(self, gates: Tensor, are_own: bool) -> bool:
        return False


@torch.inference_mode()
def leak(routing: str) -> dict[str, object]:
    """The largest change before the last position, and the share of examples with a route that changed there."""
    torch.manual_seed(0)
    shape = {"hidden_size": HIDDEN, "num_experts": HEADS, "routing": routing, "top_k": 1, "gain": 1.0}
    layers = nn.Sequential(*(_Causal(layer=i, **shape) for i in range(LAYERS))).eval()
    for layer in layers:
        nn.init.normal_(layer.qkv_weight, std=HIDDEN**-0.5)
        nn.init.normal_(layer.router.dense.weight)
    states, found = torch.randn(EXAMPLES, TOKENS, HIDDEN), []
    changed = torch.cat([states[:, :-1], torch.randn(EXAMPLES, 1, HIDDEN)], 1)
    for inputs in (states, changed):
        with record_routing() as record:
            output = layers(inputs)[:, :-1]
        gates = torch.stack([record.last(i).gates for i in range(LAYERS)], 1)  # (B, L, H) or (B, L, T, H)
        found.append((output, gates[:, :, :-1] if routing == "token" else gates))
    (one, routes), (other, others) = found
    share = (routes != others).flatten(1).any(-1).float().mean()
    change = (one - other).abs().max()
    return {"routing": routing, "largest_change": float(change), "examples_rerouted": float(share)}


def main() -> None:
    """Print one JSON list: a row for each kind of routing."""
    print_json([leak(routing) for routing in ("sequence", "token")])


if __name__ == "__main__":
    run(main)
