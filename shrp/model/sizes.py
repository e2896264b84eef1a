"""Parameters of one encoder layer by formula, whatever it was made into; `shrp.evaluation.costs` has the FLOPs and whole
models.

Notation: `d` hidden size, `ff` inner size of the feed-forward network, `dh` size of a head or expert, `m` kept experts.
"""


def linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear map with bias."""
    return inputs * outputs + outputs


def narrow_layer_params(d: int, dh: int, heads: int, neurons: int) -> int:
    """Parameters of a BERT-style layer with so many heads and feed-forward neurons, and two LayerNorms."""
    width = heads * dh
    return 3 * linear(d, width) + linear(width, d) + linear(d, neurons) + linear(neurons, d) + 2 * 2 * d


def dense_layer_params(d: int, ff: int) -> int:
    """Parameters of a BERT-style layer: Q, K, V, `W_o`, the two-layer FFN and two LayerNorms."""
    return narrow_layer_params(d, d, 1, ff)


def static_layer_params(d: int, dh: int, m: int) -> int:
    """Parameters of a `StaticLayer`: Q, K, V of `m` experts, the Expander, two LayerNorms."""
    return linear(d, 3 * m * dh) + linear(dh, d) + 2 * 2 * d
