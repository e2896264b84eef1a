"""Figures that others reported, to set one's own beside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A figure as others reported it, of BERT-base on GLUE, with denominators of its own."""

    name: str
    retained: float
    encoder_params: float | None
    """Share of the dense encoder's parameters that is left (without embeddings)."""
    encoder_flops: float | None
    """The same of its FLOPs; None where it was not reported and does not follow from the layers kept."""
    source: str
    denominator: str
    """What the shares are of, and on what."""


PUBLISHED = (
    Published(
        "SHRP, 6 of 12 layers",
        *(0.93, 0.52, None),
        "arXiv 2512.20635",
        "48% fewer parameters at 93% of BERT-base's accuracy",
    ),
    Published(
        "SHRP, 11 of 12 layers",
        *(0.844, 0.115, 0.115),
        "arXiv 2512.20635",
        "88.5% fewer parameters and 11.5% of the FLOPs at 84.4% of BERT-base's accuracy",
    ),
    Published(
        "BERT-of-Theseus",
        *(0.986, 0.5, 0.5),
        "Xu et al. 2020, arXiv 2002.02925",
        "98.6% of BERT-base's average on GLUE's development sets with 6 layers, half the encoder",
    ),
    Published(
        "DistilBERT", *(0.97, 0.5, 0.5), "arXiv 1910.01108", "97% of BERT-base's score with 6 of 12 layers"
    ),
    Published(
        "CoFi",
        *(0.95, 0.05, None),
        "Xia et al. 2022, arXiv 2204.00408",
        "about 95% of BERT-base's score at 5% of the encoder's parameters",
    ),
)
"""Points to set one's own beside; each counts its score and its size in its own way."""
