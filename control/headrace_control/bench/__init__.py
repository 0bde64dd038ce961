"""The harness behind `headrace bench`: the engine beside its peers, in one run, on one machine.

The peers' code and locks are in the repository's `bench/compare/`, one folder per environment; this package starts a
worker process in each, compares their outputs, times them in turn and judges the bars. See bench/README.md.
"""

from headrace_control.bench.results import Bar, Report, Result
from headrace_control.bench.session import Session, Settings

__all__ = ["Bar", "Report", "Result", "Session", "Settings"]
