import pytest

from ui.overview.score_figures import history_alt, history_frame, readable, training_history


@pytest.mark.parametrize(
    ("metric", "score", "interval", "said"),
    [
        ("accuracy", 0.907, [0.886, 0.924], "90.7% (95%: 88.6–92.4%)"),
        ("matthews", 0.35, [0.285, 0.414], "0.350 (95%: 0.285–0.414)"),
        ("matthews", 0.35, None, "0.350"),
    ],
)
def test_an_epochs_hover_has_the_digits_of_its_metric(metric, score, interval, said):
    epoch = {"epoch": 0, "stage": 1, "converted_layer": 2, "loss": 0.5, "metric": metric}
    scored = {"validation_score": score, "validation_interval": interval, "validation_n": 872}
    fig = training_history(history_frame([epoch | scored]), data="glue/x validation")
    assert fig.data[0].hovertext == (f"epoch 0, stage 1, layer 2 converted<br>{said}",)


@pytest.mark.parametrize("unscored", [[], [{"epoch": 1, "stage": 2}]])
def test_a_history_is_drawn_with_the_scores_that_it_has(unscored):
    scored = {"epoch": 0, "stage": 2, "metric": "f1", "validation_score": 0.5, "validation_n": 872}
    history = [scored, *unscored]
    fig = training_history(history_frame(history), data="glue/x validation")
    assert "n = 872" in fig.layout.title.text + str(fig.layout.title.subtitle.text)
    assert history_alt(history).endswith("epochs; the last score is 50.0%.")


def test_epochs_of_which_nothing_else_is_known_are_drawn():
    history = [{"epoch": 0, "stage": 1}, {"epoch": 1, "stage": 2}]
    fig = training_history(history_frame(history), data="mine")
    assert [note.text for note in fig.layout.annotations] == ["stage 1", "stage 2"]
    assert "without a validation score" in history_alt(history)


def test_stored_labels_are_read_in_the_words_of_the_app():
    assert readable("static, 2 a layer, recovered") == "pruned, 2 a layer, fine-tuned"
    assert readable("layers dropped, 5 epochs") == "layer dropping, 5 epochs"
    assert readable("random experts, 2 a layer") == "random experts, 2 a layer"
