"""Under a causal mask only routes by token keep to what came before."""

from studies.decoders import leak


def test_routes_by_sequence_see_the_future_and_routes_by_token_do_not():
    assert leak("sequence")["largest_change"] > 0.1
    assert leak("token") == {"routing": "token", "largest_change": 0.0, "examples_rerouted": 0.0}
