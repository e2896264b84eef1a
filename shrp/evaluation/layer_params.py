"""Parameters of a BERT-style layer, dense and converted: formulas without torch, which Overview's first screen needs.

`d` is the hidden size, `H` the number of experts, `dh = d / H`, `m` the number of kept experts.
"""


def _linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear map with bias."""
    return inputs * outputs + outputs


def dense_layer_params(d: int, neurons: int, width: int | None = None) -> int:
    """Parameters of a BERT-style layer: Q, K, V, `W_o`, the two-layer FFN and two LayerNorms; `width` of all heads."""
    width = d if width is None else width
    return 3 * _linear(d, width) + _linear(width, d) + _linear(d, neurons) + _linear(neurons, d) + 2 * 2 * d


def static_layer_params(d: int, dh: int, m: int, self_path: bool = False, untied: bool = False) -> int:
    """Parameters of a `StaticLayer`: Q, K, V of `m` experts, the self path, the Expander, two LayerNorms."""
    width = (m + self_path if untied else 1) * dh
    return _linear(d, (3 * m + self_path) * dh) + _linear(width, d) + 2 * 2 * d


def expert_layer_params(d: int, H: int, self_path: bool = False) -> int:
    """Parameters of an `ExpertLayer`: all `H` experts, the self path and the router."""
    own = d * (d // H) if self_path else 0  # without a bias, which a static layer's product has
    return static_layer_params(d, d // H, H) + own + _linear(d, H)
