import pytest

from ui.score_figures import history_frame, training_history


def epoch(metric, score, interval):
    return {
        "epoch": 0,
        "stage": 1,
        "converted_layer": 2,
        "loss": 0.5,
        "metric": metric,
        "validation_score": score,
        "validation_interval": interval,
        "validation_n": 872,
    }


@pytest.mark.parametrize(
    ("metric", "score", "interval", "said"),
    [
        ("accuracy", 0.907, [0.886, 0.924], "90.7% (95%: 88.6–92.4%)"),
        ("matthews", 0.35, [0.285, 0.414], "0.350 (95%: 0.285–0.414)"),
        ("matthews", 0.35, None, "0.350"),
    ],
)
def test_an_epochs_hover_has_the_digits_of_its_metric(metric, score, interval, said):
    fig = training_history(history_frame([epoch(metric, score, interval)]), data="glue/x validation")
    assert fig.data[0].hovertext == (f"epoch 0, stage 1, layer 2 converted<br>{said}",)
