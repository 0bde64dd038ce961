"""What `headrace top` shows: samples of servers' metrics, the figures between two of them, and how they are drawn."""

from headrace_control.top.figures import Histogram, ModelFigures, ServerFigures, figures_between
from headrace_control.top.prometheus import Sample, parse, scrape
from headrace_control.top.view import COLUMNS, SORTS, document, render

__all__ = [
    "COLUMNS",
    "SORTS",
    "Histogram",
    "ModelFigures",
    "Sample",
    "ServerFigures",
    "document",
    "figures_between",
    "parse",
    "render",
    "scrape",
]
