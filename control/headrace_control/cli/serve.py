"""`headrace serve`: features and models over HTTP and gRPC, from this process."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace_control.cli.output import epilog, json_option, project_option
from headrace_control.cli.params import ADDRESS, UTC_TIME

if TYPE_CHECKING:
    from headrace import Engine


KEYS = '"origin": ["JFK"], "tailnum": ["N14228"], "carrier": ["UA"]'
ASKED = '"planned_departure": ["2013-11-05T13:00:00Z"]'


@click.command(
    "serve",
    epilog=epilog(
        "headrace serve",
        "headrace serve --http 0.0.0.0:8000 --access access.toml",
        "headrace serve --http 0 --json",
        "headrace serve --http 0 --fixtures",
        "curl http://127.0.0.1:8000/v1/deployments/departure_risk_lightgbm/predict -d '{",
        f'  "entities": {{{KEYS}}},',
        f"""  "request": {{{ASKED}}}}}'""",
        "curl http://127.0.0.1:8000/get-online-features -d '{",
        '  "feature_service": "departure_risk",',
        f"""  "entities": {{{KEYS},""",
        f"""    {ASKED}}}}}'""",
    ),
)
@project_option
@json_option
@click.option("--http", type=ADDRESS, help="PORT or HOST:PORT; 0 takes a free port. Default: headrace.toml's [server].")
@click.option(
    "--metrics",
    type=ADDRESS,
    help="The same for the Prometheus metrics, on loopback unless a HOST is given. With --http 0 it is 0 too.",
)
@click.option(
    "--grpc-port", type=click.IntRange(0, 65535), help="Of gRPC, on the host of --http. With --http 0 it is free too."
)
@click.option("--no-grpc", is_flag=True, help="Serve HTTP only.")
@click.option("--writes", is_flag=True, help="Take pushes and deletions: POST /v1/feature-views/VIEW/push and /delete.")
@click.option(
    "--model-control", is_flag=True, help="Let clients load and unload models: POST /v2/repository/models/MODEL/load."
)
@click.option(
    "--fixtures", is_flag=True, help="Serve Triton's example models too: simple, simple_string, simple_identity."
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), help="Of the lines on stderr. Default: headrace.toml's."
)
@click.option(
    "--access",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file that says who may do what: API keys, tokens, TLS. See headrace keys.",
)
@click.option(
    "--insecure-no-auth", is_flag=True, help="Without such a file, let everybody in from other machines, too."
)
@click.option("--clock", type=UTC_TIME, help="Take this time for now, and let it stand still: see below.")
def command(
    project: Path,
    as_json: bool,
    http: tuple[str | None, int] | None,
    metrics: tuple[str | None, int] | None,
    grpc_port: int | None,
    no_grpc: bool,
    writes: bool,
    model_control: bool,
    fixtures: bool,
    log_format: str | None,
    access: Path | None,
    insecure_no_auth: bool,
    clock: datetime.datetime | None,
) -> None:
    """Serve the project's features and models until Ctrl-C or SIGTERM.

    Prints one line when connections are taken. What other processes apply, materialize or register meanwhile is brought
    in. It listens on loopback unless told otherwise, and on no other address without --access.

    Ask it with POST /v1/deployments/MODEL/predict (the Common API) or POST /v2/models/MODEL/infer (the Open Inference
    Protocol); POST /get-online-features answers features alone. The gRPC port answers the same
    (inference.GRPCInferenceService and headrace.v1.Headrace), health and reflection.

    With --writes it takes rows too, and is the only writer of the store from the first one on. A write is answered when
    it is durable and visible.

    The online table keeps only the newest row of each key. --clock decides which rows are too old, and brings no older
    row back: for features as of a time, materialize with --end that time first, before anything later.
    """
    import contextlib
    import dataclasses
    import signal

    # A container's first process has no default: without this the signal would be lost while the project is loaded.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    from headrace import Engine
    from headrace.logs import server_log
    from headrace.serving import serve
    from headrace_control.projects import check_project, newer_than, to_us

    check_project(project)
    with Engine(project, clock_us=None if clock is None else to_us(clock)) as engine:
        settings = engine.store.config.server
        if http is not None:
            # A free port is asked for where several servers run: they cannot share the metrics' port either.
            beside = 0 if http[1] == 0 else settings.metrics_port
            host = http[0] or settings.host
            settings = dataclasses.replace(settings, host=host, http_port=http[1], metrics_port=beside)
        if metrics is not None:
            settings = dataclasses.replace(
                settings, metrics_host=metrics[0] or settings.metrics_host, metrics_port=metrics[1]
            )
        if grpc_port is not None:
            settings = dataclasses.replace(settings, grpc=True, grpc_port=grpc_port)
        if no_grpc:
            settings = dataclasses.replace(settings, grpc=False)
        if writes:
            settings = dataclasses.replace(settings, writes=True)
        if model_control:
            settings = dataclasses.replace(settings, model_control=True)
        if log_format is not None:
            settings = dataclasses.replace(settings, log=log_format)
        if access is not None:
            settings = dataclasses.replace(settings, access=str(access.resolve()))
        if insecure_no_auth:
            settings = dataclasses.replace(settings, insecure_no_auth=True)
        if fixtures:
            engine.add_fixtures()
        warnings = [] if clock is None else newer_than(engine.store, clock)
        with contextlib.ExitStack() as open_log:
            tell = told_on_stderr
            if settings.log == "json":
                open_log.enter_context(server_log(engine.native, settings.log))
                tell = told_in_log
            for warning in [*faults(engine), *warnings]:
                tell(warning)
            with contextlib.suppress(KeyboardInterrupt):  # a signal is how a server is asked to end
                serve(engine, settings, lambda addresses: announce(engine, addresses, as_json, warnings))


def told_on_stderr(warning: str) -> None:
    click.echo(f"warning: {warning}", err=True)


def told_in_log(warning: str) -> None:
    logging.getLogger("headrace.serve").warning(warning)


def faults(engine: Engine) -> list[str]:
    """Which models cannot be served, and why."""
    unapplied = engine.store.plans.head() is None
    first = ["no definitions have been applied; no features are served until: headrace apply"] if unapplied else []
    return first + [f"model {name} is not served: {fault}" for name, fault in engine.faults.items()]


def announce(engine: Engine, addresses: Mapping[str, Any], as_json: bool, warnings: list[str]) -> None:
    """The line that tells whoever started the server that it is ready, and where."""
    host, _, port = str(addresses["http"]).rpartition(":")
    ready = sorted({model["name"] for model in engine.models() if model["ready"]})
    if as_json:
        values = {
            "host": host.strip("[]"),
            "http_port": int(port),
            "grpc": addresses["grpc"],
            "metrics": addresses["metrics"],
            "tls": addresses["tls"],
            "models": ready,
        }
        click.echo(json.dumps({**values, "warnings": warnings}))
    else:
        listed = ", ".join(ready) or "no model yet"
        grpc = "" if addresses["grpc"] is None else f"gRPC on {addresses['grpc']}, "
        scheme = "https" if addresses["tls"] else "http"
        click.echo(f"ready on {scheme}://{addresses['http']} ({grpc}metrics on {addresses['metrics']}): {listed}")
