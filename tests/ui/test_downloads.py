"""What a chart's downloads hold: a page that needs no network, and the data as they are."""

from html.parser import HTMLParser

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ui.downloads import standalone

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)> & "quoted"'
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Elements(HTMLParser):
    """The tags with their attributes, the text outside scripts, and whether every element was closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def test_a_downloaded_chart_holds_its_data_and_all_that_draws_it_and_fetches_nothing():
    fig = go.Figure(go.Bar(x=["left", "right"], y=[12.5, 37.25])).update_layout(paper_bgcolor="black")
    file = standalone(fig, "Two bars.", "sst2-6of12-usage").decode()
    own, found = file.replace(get_plotlyjs(), ""), Elements(file)
    assert len(own) < len(file) / 100
    assert own.count("Plotly.newPlot(") == 1
    for said in (
        *('"left","right"', "12.5,37.25", '<meta charset="utf-8">', "<p>Two bars.</p>"),
        "<title>sst2-6of12-usage · SHRP</title>",
        'role="img" aria-label="Two bars."',
        '"toImageButtonOptions": {"format": "svg", "filename": "sst2-6of12-usage"}',
    ):
        assert said in own
    assert not found.open
    assert not {"link", "img", "iframe", "object", "embed"} & {tag for tag, _ in found.tags}
    assert not [attrs for _, attrs in found.tags if {"src", "href", "srcset", "data"} & set(attrs)]
    assert not [word for word in ("http:", "https:", "src=", "@import", "url(", "import(") if word in own]


def test_the_words_and_labels_of_a_downloaded_chart_are_escaped():
    file = standalone(go.Figure(go.Bar(x=[EVIL], y=[1])), EVIL, "evil").decode()
    found = Elements(file)
    assert not found.open
    assert EVIL not in file
    assert "".join(found.text).count(EVIL) == 1
    assert not [attrs for _, attrs in found.tags if any(name.startswith("on") for name in attrs)]
    assert [tag for tag, _ in found.tags].count("script") == 3  # Plotly's settings, Plotly, the chart
