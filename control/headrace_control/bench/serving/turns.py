"""Servers under load in turns, as `measure` has engines in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median

from headrace_control.bench.measure import ENDING_S
from headrace_control.bench.results import Result
from headrace_control.bench.serving.load import Sample
from headrace_control.bench.session import Session
from headrace_control.errors import ControlError

OTHER_SHARE_MAX = 0.001
"""A block with more answers that are not 200 is no measurement of the server."""


@dataclass(frozen=True)
class Turn:
    """One server in one case.

    Attributes:
        block: puts load on it for so many seconds.
        around: entered for each of its blocks.
    """

    engine: str
    version: str
    case: str
    block: Callable[[float], Sample]
    around: Callable[[], AbstractContextManager[object]] = nullcontext

    @property
    def name(self) -> str:
        return f"{self.engine} {self.case}"


def measure_turns(session: Session, turns: Sequence[Turn], seconds: float) -> list[Result]:
    """A block of each turn in each repeat, begun by another one. What fails is noted and left out."""
    running = list(turns)
    blocks: dict[str, list[Sample]] = {turn.name: [] for turn in turns}

    def block(turn: Turn, length_s: float) -> Sample | None:
        if session.seconds_left < ENDING_S + length_s:
            problem = ControlError(
                "timeout", "the time limit of the area was reached", "measure fewer cases with --only"
            )
        else:
            try:
                with turn.around():
                    sample = turn.block(length_s)
                answered = sample.per_s * length_s
                if sample.other <= OTHER_SHARE_MAX * answered:
                    return sample
                message = f"{sample.other} requests were not answered with 200, about {answered:.0f} were"
                problem = ControlError("unavailable", message, "look at the server's log")
            except ControlError as error:
                problem = error
        session.skip(turn.name, problem)
        running.remove(turn)
        return None

    for turn in list(running):
        block(turn, min(seconds, 1.0))
    for repeat in range(session.settings.repeats):
        first = repeat % max(len(running), 1)
        for turn in running[first:] + running[:first]:
            sample = block(turn, seconds)
            if sample is not None:
                blocks[turn.name].append(sample)
    return [result_of(turn, blocks[turn.name]) for turn in running if blocks[turn.name]]


def result_of(turn: Turn, samples: Sequence[Sample]) -> Result:
    """Medians over the blocks: of rates, of medians, and of 99th percentiles."""
    rate = median(sample.per_s for sample in samples)
    p50_us, p99_us = median(sample.p50_us for sample in samples), median(sample.p99_us for sample in samples)
    return Result(turn.engine, turn.version, turn.case, 1, p50_us, p99_us, rate)
