"""Results: how much of a dense model's score SHRP and its controls keep, and what was asked of the method."""

from __future__ import annotations

import streamlit as st

from shrp.phrases import listed
from ui import results, state
from ui.bound import always_one
from ui.downloads import chart
from ui.text import interval_text, verdict

RECIPES = ["retain", "paper"]


def headline(models: list[dict], recipe: str, depth: str) -> str:
    """The verdict: what SHRP keeps, and which controls differ significantly."""
    wanted = {"model": "shrp", "routed": False, "fine_tuned_after_pruning": True}
    mine = next((row for row in models if wanted.items() <= row.items()), None)
    if mine is None:
        return "No SHRP model of this recipe and depth has been measured on all six tasks."
    ends = interval_text(mine["interval"], "accuracy")
    text = (
        f"With {results.DEPTHS[depth]} converted, pruned and fine-tuned, SHRP keeps **{100 * mine['share']:.1f}%** "
        f"(95% CI {ends}) of the dense model's score with {mine['encoder_params_share']:.1%} of the encoder"
    )
    leads = [row for row in results.rows("leads") if (row["recipe"], row["depth"]) == (recipe, depth)]
    if not leads:
        return text + "."
    apart = {
        "worse": [row["name"] for row in leads if row["interval"][0] > 0],
        "better": [row["name"] for row in leads if row["interval"][1] < 0],
    }
    said = " and ".join(
        f"{listed(names)} {'is' if len(names) == 1 else 'are'} significantly {how}"
        for how, names in apart.items()
        if names
    )
    said = f"only {said}" if said else "none is significantly better or worse"
    return f"{text}; of {len(leads)} controls {said}."


@state.shows_errors
def main() -> None:
    """Draw the page."""
    state.through_app()
    st.title("Results", anchor=False)
    summary, published = results.rows("summary"), results.rows("published")
    if not summary:
        st.info(
            "Nothing has been measured yet: run `python -m studies.glue`, then `python -m studies.results`."
        )
        return
    top = st.container()
    one, two = st.columns(2)
    with one:
        about = "retain: ours, distilled and first converted on unlabelled text. paper: our reading of the published recipe."
        recipe = always_one("Recipe", RECIPES, "recipe", help=about)
    with two:
        depth = always_one("Depth", list(results.DEPTHS), "depth", "11of12", format_func=results.DEPTHS.get)
    models = results.compared(recipe, depth)
    with top:
        verdict(headline(models, recipe, depth))
    frame = results.points(summary, published, recipe)
    alt = "Mean score on six GLUE tasks against encoder parameters, both in percent of the dense model"
    chart(results.score_against_size(frame, depth), frame, "results-chart", f"glue-{recipe}", alt)
    table = results.table(models)
    st.dataframe(
        table.style.format(lambda v: f"{v:.1f}".replace("-", "−"), subset=table.select_dtypes("number").columns),
        hide_index=True,
        alt="Percent of the dense model's score by task, SHRP and its controls",
    )
    st.caption(
        "Percent of the dense model's score, and of its encoder's parameters; fine-tuned after pruning, unless a name says "
        "otherwise. A majority-class baseline has 48 on average. Experts were chosen on the data that score them, as in the "
        "paper."
    )
    for title, body in results.questions().items():
        with st.expander(title, on_change="rerun", key=f"question-{title}") as part:
            if part.open:
                st.markdown(body)
    st.caption("Rows and commands: docs/results.md, docs/glue.md and docs/data.")


main()
