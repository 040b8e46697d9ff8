"""Why a layer's channels can or can't be rescaled."""

from graphnorm.explain.reasons import Explanation, Reasons, explain, why
from graphnorm.explain.routes import Link
from graphnorm.explain.status import Describer, Layer, Side, Summary, summarise

__all__ = [
    "Describer",
    "Explanation",
    "Layer",
    "Link",
    "Reasons",
    "Side",
    "Summary",
    "explain",
    "summarise",
    "why",
]
