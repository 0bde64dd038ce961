"""One call that runs an area: what the command calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headrace_control.bench.areas import AREAS
from headrace_control.bench.results import Report
from headrace_control.bench.session import Note, Session, Settings, matches
from headrace_control.errors import ControlError, require


@dataclass(frozen=True)
class BenchOptions:
    """The command's options, as they were given."""

    seed: int = 1
    quick: bool = False
    peers: tuple[str, ...] | None = None
    only: tuple[str, ...] = ()
    plot: Path | None = None


def run_area(area: str, options: BenchOptions, note: Note) -> Report:
    """Measures an area and draws its plot.

    Raises:
        ControlError: `invalid_argument` for a peer or case that the area does not have; `missing_package` without
            matplotlib when a plot is asked for; and what the area raises.
    """
    module = AREAS[area]
    if options.plot is not None:
        require("matplotlib", "matplotlib", "bench --plot")
    for peer in options.peers or ():
        if peer not in module.ENGINES:
            known = ", ".join(module.PEERS) or "none"
            raise ControlError("invalid_argument", f"the area {area} has no peer '{peer}'", f"its peers are: {known}")
    for pattern in options.only:
        if not any(matches(pattern, case, rows) for case, rows in module.POINTS):
            known = ", ".join(f"{case}/{rows}" for case, rows in module.POINTS)
            raise ControlError(
                "invalid_argument", f"the area {area} has no case '{pattern}'", f"its cases are: {known}"
            )
    settings = Settings(
        seed=options.seed,
        quick=options.quick,
        peers=options.peers,
        only=options.only,
        repeats=5 if options.quick else Settings.repeats,
    )
    with Session(settings, note) as session:
        report: Report = module.run(session)
    if not report.results and all(bar.value is None for bar in report.bars):
        reasons = "; ".join(f"{what}: {why}" for what, why in report.machine["not_measured"].items())
        raise ControlError(
            "nothing_measured",
            f"nothing of the area {area} was measured" + (f" ({reasons})" if reasons else ""),
            "run without --only and --quick, which leave cases out",
        )
    if options.plot is not None:
        from headrace_control.bench.plots import draw

        draw(report, module.TITLE, options.plot)
    return report
