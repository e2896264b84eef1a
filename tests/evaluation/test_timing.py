"""Inputs to time models on, and the timing of several in turns."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from shrp.errors import ShrpError
from shrp.evaluation import timing
from shrp.families.families import positions


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet"])  # of other positions each
def test_model_inputs_run_at_the_greatest_length(family, tiny_model):
    model = tiny_model(family)
    longest, vocabulary = positions(model.config), model.config.vocab_size
    state = torch.get_rng_state()
    inputs = timing.model_inputs(model, 80, longest, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (80, longest)
    assert inputs["attention_mask"].all()
    # Every id but the padding one, and none beyond the table.
    assert set(inputs["input_ids"].unique().tolist()) == set(range(vocabulary)) - {model.config.pad_token_id}
    with torch.no_grad():
        assert model(**inputs).logits.shape == (80, 2)
    with pytest.raises(ShrpError):
        timing.model_inputs(model, 1, longest + 1)


def test_latency_gives_milliseconds_without_the_warm_up(monkeypatch):
    """By a clock that stands still but for what is timed: rounds of 50 and 60 s (warm-up), then 1 to 5 s."""
    clock, seconds = SimpleNamespace(now=0.0), {name: iter([50, 60, 4, 1, 5, 2, 3]) for name in "ab"}
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def call(name, factor):
        clock.now += factor * next(seconds[name])

    calls = {name: partial(call, name, factor) for name, factor in (("a", 1), ("b", 10))}
    frame = timing.latency(calls, repeats=5, warmup=2).set_index("name")
    assert frame.loc["a", ["low_ms", "median_ms", "high_ms"]].tolist() == [2000, 3000, 4000]
    assert frame.loc["b", ["low_ms", "median_ms", "high_ms"]].tolist() == [20_000, 30_000, 40_000]


def test_serving_times_are_of_single_texts_and_of_batches(monkeypatch):
    """By a clock that only these calls move: "slow" takes 2 ms a text, "fast" half of it."""
    clock, seen = SimpleNamespace(now=0.0), {"slow": [], "fast": []}
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    texts = [(f"w{i}",) for i in range(5)]

    def run(name, seconds, batch):
        seen[name].append(tuple(batch))
        clock.now += seconds * len(batch)

    found = timing.serving_times(
        {"slow": partial(run, "slow", 0.002), "fast": partial(run, "fast", 0.001)}, texts
    )
    assert found["slow"] == pytest.approx({"p50_ms": 2, "p95_ms": 2, "texts_per_s": 500})
    assert found["fast"] == pytest.approx({"p50_ms": 1, "p95_ms": 1, "texts_per_s": 1000})
    assert seen["slow"] == seen["fast"]  # on the same texts
    assert {len(batch) for batch in seen["slow"]} == {1, 32}
    assert {text for batch in seen["slow"] for text in batch} == set(texts)
