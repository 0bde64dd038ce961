"""`headrace predict`: one prediction, from this process or from a server."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import click

from headrace_control.cli.lazy import option_values
from headrace_control.cli.output import Output, epilog, json_option, project_option
from headrace_control.cli.params import UTC_TIME
from headrace_control.errors import FAILED, OK, ControlError

TIMEOUT_SECONDS = 10.0
SECTIONS = ("entities", "request", "features")


@click.command(
    "predict",
    epilog=epilog(
        "headrace predict departure_risk_lightgbm origin=JFK tailnum=N14228 carrier=UA \\",
        "    planned_departure=2013-11-05T13:00:00Z --clock 2013-11-05T12:00:00Z",
        "headrace predict departure_risk_lightgbm -e origin=JFK -r planned_departure=2013-11-05T13:00:00Z \\",
        "    --url http://127.0.0.1:8000",
    ),
)
@click.argument("model")
@click.argument("values", nargs=-1, metavar="[NAME=VALUE]...")
@project_option
@json_option
@click.option("-e", "--entity", multiple=True, metavar="NAME=VALUE", help="A join key.")
@click.option("-r", "--request", multiple=True, metavar="NAME=VALUE", help="What only the caller knows.")
@click.option("-f", "--feature", multiple=True, metavar="NAME=VALUE", help="A feature, in place of the stored one.")
@click.option("--output", "outputs", multiple=True, help="label, scores or margin; may be given several times.")
@click.option("--version", "version", type=click.IntRange(1), help="The model's version; the default is the newest.")
@click.option("--url", help="Ask this server in place of the project's files.")
@click.option("--clock", type=UTC_TIME, help="Read features as of this time; the default is now. Not with --url.")
def command(
    model: str,
    values: tuple[str, ...],
    project: Path,
    as_json: bool,
    entity: tuple[str, ...],
    request: tuple[str, ...],
    feature: tuple[str, ...],
    outputs: tuple[str, ...],
    version: int | None,
    url: str | None,
    clock: datetime.datetime | None,
) -> int:
    """Ask MODEL for one prediction.

    Plain NAME=VALUE pairs find their place by the signature of the project's model. A server that is asked with --url
    outside of the project needs -e, -r and -f. The answer has the shape of POST /v1/deployments/MODEL/predict.
    """
    given: dict[str, dict[str, str]] = {name: {} for name in SECTIONS}
    for pairs, section, option in ((entity, "entities", "-e"), (request, "request", "-r"), (feature, "features", "-f")):
        option_values(given[section], pairs, option)
    plain: dict[str, str] = {}
    option_values(plain, values, "NAME=VALUE")
    if url is not None and clock is not None:
        raise click.UsageError("a server has its own clock: leave out --clock")
    kinds = place(given, plain, model, version, project) if plain or url is None else {}
    body: dict[str, Any] = {
        section: {name: [parse(text, kinds.get(name))] for name, text in pairs.items()}
        for section, pairs in given.items()
        if pairs
    }
    if outputs:
        body["outputs"] = list(outputs)
    answer = embedded(project, model, version, clock, body) if url is None else over_http(url, model, version, body)
    prediction = answer["predictions"][0]
    Output(as_json).result(answer, *lines(answer, prediction))
    return FAILED if "status" in prediction else OK


def place(
    given: dict[str, dict[str, str]], plain: dict[str, str], model: str, version: int | None, project: Path
) -> dict[str, str]:
    """Sorts plain pairs into the sections by the model's signature, and returns the dtype of each name.

    Raises:
        ControlError: `unknown_model`, `unknown_model_version`, `unknown_feature`.
    """
    from headrace_control.projects import check_project
    from headrace_control.training.register import versions

    check_project(project)
    found = {one.version: one for one in versions(project / ".headrace" / "models", model)}
    if not found:
        known = sorted(path.name for path in (project / ".headrace" / "models").glob("*") if path.is_dir())
        raise ControlError(
            "unknown_model",
            f"the project has no model '{model}'",
            f"it has: {', '.join(known)}" if known else "train one first: headrace train",
        )
    if version is not None and version not in found:
        raise ControlError(
            "unknown_model_version",
            f"model '{model}' has no version {version}",
            f"it has: {', '.join(str(number) for number in found)}",
        )
    signature = found[version or max(found)].manifest["signature"]
    sections = {"entities": "join_keys", "request": "request_fields", "features": "features"}
    kinds: dict[str, str] = {}
    for section, key in reversed(sections.items()):
        for field in signature[key]:
            kinds[field["name"]] = field["dtype"]
            if field["name"] in plain:
                given[section][field["name"]] = plain.pop(field["name"])
    if plain:
        name = next(iter(plain))
        wanted = [field["name"] for key in ("join_keys", "request_fields") for field in signature[key]]
        raise ControlError(
            "unknown_feature",
            f"model '{model}' takes no '{name}'",
            f"give {', '.join(wanted)}; or a feature in place of the stored one",
        )
    return kinds


def parse(text: str, dtype: str | None) -> Any:
    """A value from the command line by its type; without one, as JSON where it is JSON, else as text."""
    if text == "null":
        return None
    if dtype in ("string", "bytes", "timestamp"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def embedded(
    project: Path, model: str, version: int | None, clock: datetime.datetime | None, body: dict[str, Any]
) -> dict[str, Any]:
    from headrace import Engine
    from headrace_control.projects import check_project, to_us

    check_project(project)
    with Engine(project, clock_us=None if clock is None else to_us(clock)) as engine:
        return engine.predict(model, version=version, **body)


def over_http(url: str, model: str, version: int | None, body: dict[str, Any]) -> dict[str, Any]:
    """Asks a server.

    Raises:
        ControlError: what the server refuses, in its words; `unavailable` when there is none.
    """
    from urllib.error import HTTPError, URLError
    from urllib.parse import quote
    from urllib.request import Request, urlopen

    if not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"'{url}' does not start with http:// or https://", param_hint="--url")
    suffix = "" if version is None else f"/versions/{version}"
    address = f"{url.rstrip('/')}/v1/deployments/{quote(model, safe='')}{suffix}/predict"
    asked = Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urlopen(asked, timeout=TIMEOUT_SECONDS) as reply:
            answer: dict[str, Any] = json.load(reply)
    except HTTPError as error:
        said = error.read().decode(errors="replace")
        try:
            refusal = json.loads(said)
        except ValueError:
            refusal = {}
        message = refusal.get("error", said) if isinstance(refusal, dict) else said
        code = refusal.get("code", "unavailable") if isinstance(refusal, dict) else "unavailable"
        raise ControlError(str(code), f"the server answered {error.code}: {message}", "correct the request") from error
    except (URLError, OSError) as error:
        raise ControlError(
            "unavailable", f"no server answers at {url}: {error}", "start one (headrace serve), or correct --url"
        ) from error
    return answer


def lines(answer: dict[str, Any], prediction: dict[str, Any]) -> list[str]:
    """The prediction for people: what, how sure, by which model."""
    shown = [f"model   {answer['model']} version {answer['model_version']}"]
    for name, value in prediction.items():
        text = ", ".join(f"{label} {score}" for label, score in value.items()) if isinstance(value, dict) else value
        shown.append(f"{name.ljust(7)} {text}")
    return shown
