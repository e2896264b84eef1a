import base64
import json
import shlex
from urllib.parse import parse_qs

import numpy as np
from streamlit.proto.WidgetStates_pb2 import WidgetState

from shrp import cli
from shrp import jobs as library
from ui import jobs
from ui import store as stores


def texts_of(at):
    """Everything that a page says, without Markdown's escapes."""
    kinds = ("title", "header", "subheader", "markdown", "caption", "info", "success", "warning", "error")
    parts = [e.value for kind in kinds for e in getattr(at, kind)]
    return "\n".join(str(part) for part in parts).replace("\\", "")


def plainly(at):
    return texts_of(at).replace("**", "")


def specs(at):
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def figure(at, part):
    """The page's first chart with this in its title."""
    return next((spec for spec in specs(at) if part in spec["layout"]["title"]["text"]), None)


def targets(spec):
    """The invisible markers over a map's cells, which take the clicks."""
    return [trace for trace in spec["data"] if trace["type"] == "scatter"][-1]


def values(array):
    """A plotly array, which is a list or a base64-coded buffer."""
    if isinstance(array, dict):
        found = np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])
        return found.reshape([int(n) for n in str(array.get("shape", found.size)).split(",")])
    return np.array(array, dtype=float)


def links(block):
    """What each link of a page, or of a part of it, asks of its page, by label."""
    asked = {one.proto.label: parse_qs(one.proto.query_string) for one in block.get("page_link")}
    return {label: {key: found[0] for key, found in query.items()} for label, query in asked.items()}


def forget():
    """What a restart of the app forgets."""
    stores.results.clear()


def row(model, kind, score, **facts):
    return {
        "model": model,
        "kind": kind,
        "data": "glue/sst2 validation",
        "metric": "accuracy",
        "score": score,
        "n": 872,
        "interval": [score - 0.02, score + 0.02],
        "interval_is": "95%",
        "retained": score / 0.9,
    } | facts


SCORES = (
    row("dense teacher", "teacher", 0.9),
    row("routed", "routed", 0.89),
    row("static, 1 a layer", "static", 0.8, per_layer=1, budget=2),
    row("random experts, 1 a layer", "control", 0.6, per_layer=1, budget=2),
    row("layers dropped, 5 epochs", "control", 0.885),
)
HISTORY = [
    {
        "epoch": epoch,
        "stage": stage,
        "converted_layer": layer,
        "loss": 0.5,
        "task_loss": 0.4,
        "balance_loss": 0.1,
        "metric": "accuracy",
        "validation_score": 0.9 - 0.01 * epoch,
        "validation_interval": [0.85, 0.92],
        "validation_n": 872,
        "usage": usage,
        "seconds": 3.0,
    }
    for epoch, stage, layer, usage in (
        (0, 1, 2, {"2": [0.25, 0.25, 0.25, 0.25]}),
        (1, 1, 1, {"1": [0.25] * 4, "2": [0.97, 0.01, 0.01, 0.01]}),
        (2, 2, None, {"1": [0.7, 0.1, 0.1, 0.1], "2": [0.97, 0.01, 0.01, 0.01]}),
    )
]

def headline(at):
    """The page's first paragraph, without marks."""
    return at.main.markdown[0].value.replace("*", "").replace("\\", "")


def button(at, key):
    return next((one for one in at.button if one.key == key), None)


def press(at, *keys):
    """Press buttons at once."""
    for key in keys:
        button(at, key).click()
    return at.run()


def accepted(job):
    """What the real parser makes of a job's command: the values of its options."""
    name, *given = shlex.split(job.command)[3:]
    return cli._command().commands[name].make_context(name, given).params


def only_job():
    (job,) = library.jobs(jobs.root())
    return job


def opened(at):
    """The page with the dialog for a person's own model and data open."""
    return at if at.file_uploader else at.button(key="own-open").click().run()


def upload(at, what, *file):
    """Put a file (name, content) into the dialog's box with `what` in its label."""
    box = next(box for box in opened(at).file_uploader if what in box.label)
    return box.set_value((*file, "application/octet-stream")).run()


def report(at, element_id, value):
    """Run with what the browser would report for a widget that AppTest can't operate: a chart, a table."""
    states = at._tree.get_widget_states()
    states.widgets.append(WidgetState(id=element_id, string_value=json.dumps(value)))
    return at._run(states)
