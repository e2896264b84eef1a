"""Charts of the experiments on the method itself, from the tables of `shrp.studies.experiments`."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shrp.phrases import in_points
from shrp.studies.matching import EXCHANGES
from ui.text import escape_html, metric_name
from ui.theme import BLUE, DASHES, GREEN, GREY, MUTED, ORANGE, PURPLE, SKY, SYMBOLS, layout, whiskers

_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY)


def between(lows: pd.Series, highs: pd.Series, figures: str) -> list[str]:
    """Both ends of each value as a mark says them: `0.123 to 0.456` by the format `.3f`."""
    return [
        f"{low:{figures}} to {high:{figures}}" if low == low else "no interval"
        for low, high in zip(lows, highs, strict=True)
    ]


def _around(rows: pd.DataFrame, also: pd.Series, low: str = "low", high: str = "high") -> list[float]:
    """A range for an axis that holds all bars and `also`; marks in groups would have it start at 0."""
    bottom, top = pd.concat([rows[low], also]).min(), pd.concat([rows[high], also]).max()
    margin = 0.08 * ((top - bottom) or 1)
    return [float(bottom - margin), float(top + margin)]


def usage_distance(rows: pd.DataFrame, note: str) -> go.Figure:
    """Distance of one layer's usage from uniform, over the training examples seen.

    Args:
        rows: `shrp.studies.experiments.layer_frame` of one task and layer.
        note: what the rows are of.
    """
    fig = go.Figure()
    shown = ["stage", "seeds", "n", "low", "high", "effective", "top_share", "score"]
    fig.add_scatter(
        x=rows["examples"],
        y=rows["distance"],
        error_y=whiskers(rows["distance"], rows["low"], rows["high"]),
        mode="lines+markers",
        name="Top-1 shares",
        line={"color": BLUE, "width": 2.5},
        customdata=rows[shown],
        hovertemplate="%{x:,} examples, stage %{customdata[0]}<br>distance %{y:.3f} (%{customdata[3]:.3f} to "
        "%{customdata[4]:.3f}, seeds: %{customdata[1]}, n = %{customdata[2]:,})<br>%{customdata[5]:.1f} effective "
        "experts, largest share %{customdata[6]:.1%}<br>score %{customdata[7]:.4f}<extra></extra>",
    )
    known = rows[rows["mean_distance"].notna()]
    fig.add_scatter(
        x=known["examples"],
        y=known["mean_distance"],
        mode="lines+markers",
        name="mean router probabilities (what the balance loss sees)",
        line={"color": ORANGE, "width": 2, "dash": "dash"},
        marker={"symbol": "square"},
        hovertemplate="%{x:,} examples: mean probabilities %{y:.3f} from uniform<extra></extra>",
    )
    fig.add_scatter(
        x=rows["examples"],
        y=rows["even_distance"],
        mode="lines",
        name="even picks, counted on as many inputs",
        line={"color": GREY, "dash": "dot"},
        hovertemplate="even picks would measure %{y:.3f}<extra></extra>",
    )
    first = rows.loc[rows["stage"] == 1, "examples"]
    if len(first) and (rows["stage"] == 2).any():
        fig.add_vline(x=float(first.max()), line={"color": GREY, "width": 1.5}, annotation_text="stage 2 →")
    fig.update_yaxes(rangemode="tozero")
    return layout(
        fig,
        f"Usage of layer {int(rows['layer'].iloc[0])}: distance from uniform",
        subtitle=note,
        x="training examples since the layer was converted",
        y="total variation distance (0: even)",
        height=440,
        legend=True,
    )


def topk_scores(rows: pd.DataFrame, note: str) -> go.Figure:
    """Score before (routed) and after pruning to each budget, a line a k.

    Args:
        rows: `shrp.studies.experiments.topk_scores` of one task.
        note: what the rows are of.
    """
    fig = go.Figure()
    budgets = sorted(rows["budget"].dropna().unique(), reverse=True)
    order = ["routed", *(f"{budget:.0f} kept" for budget in budgets)]
    rows = rows.assign(at=rows["budget"].map(lambda b: "routed" if b != b else f"{b:.0f} kept"))
    for i, (k, part) in enumerate(rows.groupby("top_k")):
        part = part.set_index("at").reindex([name for name in order if name in set(part["at"])]).reset_index()
        fig.add_scatter(
            x=part["at"],
            y=part["score"],
            error_y=whiskers(part["score"], part["low"], part["high"]),
            mode="lines+markers",
            name=f"Top-{k}",
            line={"color": _COLORS[i % 5], "dash": DASHES[i % 5]},
            marker={"symbol": SYMBOLS[i % 5], "size": 10},
            customdata=part[["seeds", "n", "encoder_flops", "encoder_params"]].assign(
                ends=between(part["low"], part["high"], ".4f")
            ),
            hovertemplate=f"Top-{k}, %{{x}}: %{{y:.4f}} (%{{customdata[4]}}, seeds: "
            "%{customdata[0]}, n = %{customdata[1]:,})<br>%{customdata[2]:.1%} of the encoder's FLOPs, "
            "%{customdata[3]:.1%} of its parameters<extra></extra>",
        )
    fig.add_hline(y=float(rows["teacher"].iloc[0]), line={"color": GREY, "dash": "dash", "width": 1})
    fig.update_xaxes(categoryorder="array", categoryarray=order)
    fig.update_layout(scattermode="group", scattergap=0.7)
    fig.update_yaxes(range=_around(rows, pd.concat([rows["teacher"], rows["score"]])))
    metric = metric_name(str(rows["metric"].iloc[0]))
    return layout(fig, "Score before and after pruning", subtitle=note, y=metric, height=430, legend=True)


def kept_overlap(rows: pd.DataFrame, note: str) -> go.Figure:
    """Overlap over seeds of what is kept in all layers, by budget, a group a k, with chance beside each.

    Args:
        rows: `shrp.studies.experiments.topk_stability` of one task.
        note: what the rows are of.
    """
    rows = rows[rows["layer"] == "all"]
    fig = go.Figure()
    for i, (k, part) in enumerate(rows.groupby("top_k")):
        names = [f"{budget} kept" for budget in part["budget"]]
        fig.add_bar(
            x=names,
            y=part["overlap"],
            error_y=whiskers(part["overlap"], part["low"], part["high"]),
            name=f"Top-{k}",
            offsetgroup=f"{k}",
            marker={"color": _COLORS[i % 5]},
            customdata=part[["low", "high", "pairs", "seeds", "chance", "used"]],
            hovertemplate=f"Top-{k}, %{{x}}: overlap %{{y:.2f}} (pairs %{{customdata[0]:.2f}} to "
            "%{customdata[1]:.2f}; %{customdata[2]} pairs of %{customdata[3]} seeds)<br>chance "
            "%{customdata[4]:.2f}; %{customdata[5]:.1f} of the kept are used<extra></extra>",
        )
        fig.add_scatter(
            x=names,
            y=part["chance"],
            mode="markers",
            name="random sets of these sizes" if i == 0 else "",
            showlegend=i == 0,
            offsetgroup=f"{k}",
            marker={"symbol": "line-ew-open", "size": 26, "color": GREY, "line": {"width": 3}},
            hovertemplate=f"Top-{k}, %{{x}}: random sets share %{{y:.2f}}<extra></extra>",
        )
    fig.update_layout(barmode="group", scattermode="group")
    fig.update_yaxes(range=[0, 1.05])
    return layout(
        fig, "Do seeds keep the same experts?", subtitle=note, y="mean Jaccard index", height=430, legend=True
    )


def overlap_by_layer(rows: pd.DataFrame, note: str) -> go.Figure:
    """The same for each layer: a line a k, with chance dotted.

    Args:
        rows: `shrp.studies.experiments.topk_stability` of one task and budget.
        note: what the rows are of.
    """
    rows = rows[rows["layer"] != "all"]
    fig = go.Figure()
    for i, (k, part) in enumerate(rows.groupby("top_k")):
        color = _COLORS[i % 5]
        fig.add_scatter(
            x=[f"layer {layer}" for layer in part["layer"]],
            y=part["overlap"],
            mode="lines+markers",
            name=f"Top-{k}",
            line={"color": color},
            marker={"symbol": SYMBOLS[i % 5], "size": 9},
            customdata=part[["low", "high", "pairs"]],
            hovertemplate=f"%{{x}}, Top-{k}: %{{y:.2f}} (pairs %{{customdata[0]:.2f}} to %{{customdata[1]:.2f}}, "
            "%{customdata[2]} pairs)<extra></extra>",
        )
        fig.add_scatter(
            x=[f"layer {layer}" for layer in part["layer"]],
            y=part["chance"],
            mode="lines",
            name=f"Top-{k}: chance",
            line={"color": color, "dash": "dot", "width": 1.5},
            hovertemplate=f"%{{x}}, Top-{k}: random sets share %{{y:.2f}}<extra></extra>",
        )
    fig.update_yaxes(range=[0, 1.05])
    return layout(fig, "Layer by layer", subtitle=note, y="mean Jaccard index", height=380, legend=True)


def sweep(rows: pd.DataFrame, note: str) -> go.Figure:
    """Score against encoder FLOPs at every budget, the most used experts beside random ones.

    Args:
        rows: `shrp.studies.experiments.sweep_frame` of one task.
        note: what the rows are of.
    """
    fig = go.Figure()
    looks = {
        "static": ("the most used experts", GREEN, "rgba(19,154,120,0.18)"),
        "random": ("control: random experts", ORANGE, "rgba(204,116,16,0.18)"),
    }
    for model, (label, color, fill) in looks.items():
        part = rows[rows["model"] == model].sort_values("budget")
        if part.empty:
            continue
        x, known = 100 * part["encoder_flops"], part.dropna(subset=["low", "high"])
        over = 100 * known["encoder_flops"]
        fig.add_scatter(
            x=[*over, *over[::-1]],
            y=[*known["high"], *known["low"][::-1]],
            fill="toself",
            fillcolor=fill,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
        fig.add_scatter(
            x=x,
            y=part["score"],
            mode="lines+markers",
            name=label,
            line={"color": color, "dash": "solid" if model == "static" else "dash"},
            marker={"symbol": "square" if model == "static" else "x", "size": 6},
            customdata=part[["budget", "seeds", "n", "encoder_params"]].assign(
                ends=between(part["low"], part["high"], ".4f")
            ),
            hovertemplate=f"{label}, %{{customdata[0]:.0f}} in all: %{{y:.4f}} (%{{customdata[4]}}, "
            "seeds: %{customdata[1]}, n = %{customdata[2]:,})<br>%{x:.1f}% of the encoder's "
            "FLOPs, %{customdata[3]:.1%} of its parameters<extra></extra>",
        )
    routed = rows[rows["model"] == "routed"]
    fig.add_scatter(
        x=100 * routed["encoder_flops"],
        y=routed["score"],
        error_y=whiskers(routed["score"], routed["low"], routed["high"]),
        mode="markers",
        name="routed",
        marker={"color": BLUE, "size": 12},
        hovertemplate="routed: %{y:.4f} at %{x:.1f}% of the encoder's FLOPs<extra></extra>",
    )
    fig.add_hline(y=float(rows["teacher"].iloc[0]), line={"color": GREY, "dash": "dash", "width": 1})
    metric = metric_name(str(rows["metric"].iloc[0]))
    return layout(
        fig,
        "Score against FLOPs",
        subtitle=note,
        x="encoder FLOPs at 128 tokens, % of the dense encoder's",
        y=metric,
        height=470,
        legend=True,
    )


def balance(rows: pd.DataFrame, note: str) -> go.Figure:
    """Effective experts in both stages and the scores, by the weight of the balance loss.

    Args:
        rows: `shrp.studies.balance.balance_frame` of one task.
        note: what the rows are of.
    """
    fig = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.12,
        subplot_titles=["effective experts a layer", metric_name(str(rows["metric"].iloc[0]))],
    )
    names = [f"{weight:g}" for weight in rows["balance"]]
    for name, label, color, symbol, place in (
        ("effective 1", "through stage 1", ORANGE, "circle", 1),
        ("effective 2", "after stage 2", PURPLE, "diamond", 1),
        ("routed", "routed", BLUE, "circle", 2),
        ("static", f"static, {int(rows['per_layer'].iloc[0])} a layer", GREEN, "square", 2),
    ):
        extra = rows[["seeds", "n", "collapsed"]].copy()
        extra["share"] = rows[f"share {name[-1]}"] if place == 1 else 0
        extra["ends"] = between(rows[f"{name} low"], rows[f"{name} high"], ".3f")
        tail = (
            "<br>largest share %{customdata[3]:.1%}, collapsed runs: %{customdata[2]}" if place == 1 else ""
        )
        fig.add_scatter(
            x=names,
            y=rows[name],
            error_y=whiskers(rows[name], rows[f"{name} low"], rows[f"{name} high"]),
            mode="lines+markers",
            name=label,
            line={"color": color},
            marker={"symbol": symbol, "size": 9},
            customdata=extra,
            hovertemplate=f"weight %{{x}}, {label}: %{{y:.3f}} (%{{customdata[4]}}, "
            f"seeds: %{{customdata[0]}}, n = %{{customdata[1]:,}}){tail}<extra></extra>",
            row=place,
            col=1,
        )
    fig.add_hline(
        y=float(rows["teacher"].iloc[0]), line={"color": GREY, "dash": "dash", "width": 1}, row=2, col=1
    )
    fig.update_yaxes(range=[0, 1.05 * float(rows["experts"].iloc[0])], row=1, col=1)
    fig.update_xaxes(type="category")
    layout(fig, "Collapse and score by the balance loss's weight", subtitle=note, height=600, legend=True)
    fig.update_layout(margin={"t": fig.layout.margin.t + 22})  # the upper panel has a title too
    fig.update_xaxes(title_text="weight of the balance loss in stage 1", row=2, col=1)
    return fig


def overhead(frame: pd.DataFrame, note: str) -> go.Figure:
    """How many times as long routed takes as static, by batch and length, with quartiles over rounds.

    Args:
        frame: `shrp.studies.experiments.overhead_frame`.
        note: on what machine, how often.
    """
    fig = go.Figure()
    for i, (model, rows) in enumerate(frame.groupby("model", sort=False)):
        fig.add_scatter(
            x=[[f"{t} tokens" for t in rows["tokens"]], [f"batch {b}" for b in rows["batch"]]],
            y=rows["ratio"],
            error_y=whiskers(rows["ratio"], rows["ratio_low"], rows["ratio_high"]),
            mode="markers",
            name=escape_html(model),
            marker={"color": _COLORS[i % 5], "symbol": SYMBOLS[i % 5], "size": 10},
            customdata=rows[
                [
                    "routed_ms",
                    "static_ms",
                    "ratio_low",
                    "ratio_high",
                    "rounds",
                    "experts_chosen",
                    "flop_ratio",
                ]
            ],
            hovertemplate=f"{escape_html(model)}, %{{x}}<br>%{{y:.3f}} times (%{{customdata[2]:.3f}} to "
            "%{customdata[3]:.3f}, %{customdata[4]} rounds)<br>routed %{customdata[0]:.1f} ms, static "
            "%{customdata[1]:.1f} ms<br>%{customdata[5]:.1f} experts a layer chosen; FLOPs %{customdata[6]:.4f} times"
            "<extra></extra>",
        )
    fig.add_hline(1, line={"color": MUTED, "width": 1.5})
    fig.update_layout(scattermode="group", scattergap=0.4)
    fig.update_yaxes(range=_around(frame, pd.Series([1.0]), "ratio_low", "ratio_high"))
    return layout(
        fig,
        "What routing costs: time of the routed over the static model",
        subtitle=note,
        y="ratio of latencies",
        height=450,
        legend=True,
    )


_EXCHANGES = {
    "as drawn": (GREY, "circle"),
    "put in": (GREEN, "triangle-up"),
    "taken out": (ORANGE, "triangle-down"),
    "another": (SKY, "x"),
}


def exchanges(rows: pd.DataFrame, note: str) -> go.Figure:
    """Retained share of each pruning as drawn, and trained once more with other experts.

    Args:
        rows: `shrp.studies.matching.matching_frame` of one task.
        note: what the rows are of.
    """
    fig = go.Figure()
    rows = rows.assign(name=[f"{row.pruning}, seed {row.seed}" for row in rows.itertuples()])
    for kind, label in EXCHANGES.items():
        part = rows[rows["exchange"] == kind]
        if part.empty:
            continue
        color, symbol = _EXCHANGES[kind]
        fig.add_scatter(
            y=part["name"],
            x=100 * part["retained"],
            error_x=whiskers(*(100 * part[end] for end in ("retained", "low", "high"))),
            mode="markers",
            orientation="h",
            name=label,
            marker={"color": color, "symbol": symbol, "size": 12},
            customdata=part[["what", "matching", "n", "metric", "score"]].assign(
                metric=part["metric"].map(metric_name),
                ends=between(part["low"], part["high"], ".1%"),
                change=[
                    "" if value != value else f"<br>{in_points(value, low, high)} points, paired"
                    for value, low, high in part[["change", "change low", "change high"]].itertuples(
                        index=False
                    )
                ],
            ),
            hovertemplate=f"%{{y}}: {label}<br>%{{customdata[0]}}<br>%{{x:.1f}}% of the teacher's score "
            "(%{customdata[5]}; %{customdata[3]} %{customdata[4]:.4f}, n = %{customdata[2]:,})%{customdata[6]}<br>most "
            "matching of all kept experts after training: %{customdata[1]:.0%}<extra></extra>",
        )
    fig.update_layout(scattermode="group", scattergap=0.3)
    fig.update_yaxes(autorange="reversed")
    return layout(
        fig,
        f"Kept score with other experts: {rows['task'].iloc[0]}",
        subtitle=note,
        x="of the dense teacher's score (%)",
        height=230 + 70 * rows["name"].nunique(),
        legend=True,
    )
