"""`headrace lineage`: from source columns to features, services and models, in words, as data or drawn."""

from __future__ import annotations

from pathlib import Path

import click

from headrace_control.cli.output import Output, epilog, json_option, project_option

EXAMPLES = epilog(
    "headrace lineage --svg lineage.svg",
    "headrace lineage weather:temp    # what leads to it, what it leads to",
    "headrace lineage departure_risk --json",
)


@click.command("lineage", epilog=EXAMPLES)
@click.argument("name", required=False)
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into this file.")
@project_option
@json_option
def command(name: str | None, svg: Path | None, project: Path, as_json: bool) -> None:
    """Show what features are made of and who uses them: the whole project, or what leads to and from NAME.

    NAME is a feature (temp, weather:temp), a view, a service, a model (late, late/3), a source, or a column of one
    (data/weather.parquet#temp). Through computed features too.
    """
    from headrace_control.lineage_svg import draw
    from headrace_control.projects import open_applied

    with open_applied(project) as store:
        graph = store.lineage(name)
    values = graph.to_json()
    lines = [f"{graph.nodes[start].id} -> {graph.nodes[end].id}" for start, end in graph.edges]
    if svg is not None:
        svg.write_text(draw(graph), "utf-8")
        values["svg"] = str(svg)
        lines = [f"{len(graph.nodes)} things and {len(graph.edges)} edges drawn into {svg}"]
    Output(as_json).result(values, *lines)
