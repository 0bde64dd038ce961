"""`headrace predict`: one prediction, from this process or from a server."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace_control.cli.lazy import fail, option_values
from headrace_control.cli.output import Output, epilog, json_option, project_option
from headrace_control.cli.params import UTC_TIME
from headrace_control.errors import FAILED, OK, ControlError, describe

if TYPE_CHECKING:
    from headrace import Engine

TIMEOUT_SECONDS = 10.0
# Section of a request -> its member of a model's signature.
SECTIONS = {"entities": "join_keys", "request": "request_fields", "features": "features"}


@click.command(
    "predict",
    epilog=epilog(
        "headrace materialize --end 2013-11-05T12:00:00Z",
        "headrace predict departure_risk_lightgbm origin=JFK tailnum=N14228 carrier=UA \\",
        "    planned_departure=2013-11-05T13:00:00Z --clock 2013-11-05T12:00:00Z",
        "headrace predict departure_risk_lightgbm origin=JFK tailnum=N14228 carrier=UA \\",
        "    planned_departure=2013-11-05T13:00:00Z --clock 2013-11-05T12:00:00Z --explain --top 5",
        "headrace predict departure_risk_lightgbm -e origin=JFK -e tailnum=N14228 -e carrier=UA \\",
        "    -r planned_departure=2013-11-05T13:00:00Z --url http://127.0.0.1:8000",
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
@click.option("--explain", is_flag=True, help="Tell what each feature adds to the margin.")
@click.option("--top", type=click.IntRange(1), help="With --explain: only so many features, those that count most.")
@click.option("--version", "version", type=click.IntRange(1), help="The model's version; the default is the newest.")
@click.option("--url", help="Ask this server in place of the project's files.")
@click.option("--clock", type=UTC_TIME, help="Take this time for now: see below. Not with --url.")
def command(
    model: str,
    values: tuple[str, ...],
    project: Path,
    as_json: bool,
    entity: tuple[str, ...],
    request: tuple[str, ...],
    feature: tuple[str, ...],
    outputs: tuple[str, ...],
    explain: bool,
    top: int | None,
    version: int | None,
    url: str | None,
    clock: datetime.datetime | None,
) -> int:
    """Ask MODEL for one prediction.

    Plain NAME=VALUE pairs find their place by the signature of the project's model. A server that is asked with --url
    outside of the project needs -e, -r and -f. The answer has the shape of POST /v1/deployments/MODEL/predict; asked in
    this process, --json adds the status of each feature that was read (feature_statuses) and the warnings.

    The online table keeps only the newest row of each key. --clock decides which rows are too old, and brings no older
    row back: for features as of a time, materialize with --end that time first, before anything later.
    """
    given: dict[str, dict[str, str]] = {name: {} for name in SECTIONS}
    for pairs, section, option in ((entity, "entities", "-e"), (request, "request", "-r"), (feature, "features", "-f")):
        option_values(given[section], pairs, option)
    plain: dict[str, str] = {}
    option_values(plain, values, "NAME=VALUE")
    if url is not None and clock is not None:
        raise click.UsageError("a server has its own clock: leave out --clock")
    if plain or url is None:
        signature = signature_of(model, version, project)
        kinds = place(given, plain, model, signature)
        check_complete(given, model, signature)
    else:
        signature, kinds = {}, {}
    body: dict[str, Any] = {
        section: {name: [parse(text, kinds.get(name))] for name, text in pairs.items()}
        for section, pairs in given.items()
        if pairs
    }
    if outputs:
        body["outputs"] = list(outputs)
    if explain or top is not None:
        body["explain"] = True if top is None else {"top": top}
    try:
        if url is None:
            answer = embedded(project, model, version, clock, body, signature)
        else:
            answer = over_http(url, model, version, body)
    except Exception as error:
        known = describe(error)
        if known is None or known[0] != "missing_column":
            raise
        raise ControlError("invalid_argument", *known[1:]) from error  # a column is what the command line did not give
    prediction = answer["predictions"][0]
    output = Output(as_json)
    for warning in answer.get("warnings", ()):
        output.warn(warning)
    if "status" in prediction and not as_json:
        fault = prediction["status"]
        fail(fault["code"], fault["error"], "correct the value", as_json, FAILED)
    output.result(answer, *lines(answer, prediction))
    return FAILED if "status" in prediction else OK


def signature_of(model: str, version: int | None, project: Path) -> dict[str, Any]:
    """What a registered model takes.

    Raises:
        ControlError: `not_trained`, `unknown_model`, `unknown_model_version`.
    """
    from headrace_control.projects import check_project
    from headrace_control.training.register import versions

    check_project(project)
    found = {one.version: one for one in versions(project / ".headrace" / "models", model)}
    if not found:
        known = sorted(path.name for path in (project / ".headrace" / "models").glob("*") if path.is_dir())
        raise ControlError(
            "unknown_model" if known else "not_trained",
            f"the project has no model '{model}'",
            f"it has: {', '.join(known)}" if known else "train one first: headrace train",
        )
    if version is not None and version not in found:
        raise ControlError(
            "unknown_model_version",
            f"model '{model}' has no version {version}",
            f"it has: {', '.join(str(number) for number in found)}",
        )
    signature: dict[str, Any] = found[version or max(found)].manifest["signature"]
    return signature


def place(
    given: dict[str, dict[str, str]], plain: dict[str, str], model: str, signature: dict[str, Any]
) -> dict[str, str]:
    """Sorts plain pairs into the sections by the model's signature, and returns the dtype of each name.

    Raises:
        ControlError: `unknown_feature`.
    """
    kinds: dict[str, str] = {}
    for section, key in reversed(SECTIONS.items()):
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


def check_complete(given: dict[str, dict[str, str]], model: str, signature: dict[str, Any]) -> None:
    """Names all that is missing at once. Where features are given, the engine knows which keys it still needs.

    Raises:
        click.UsageError: join keys or request fields are missing.
    """
    if given["features"]:
        return
    missing = [
        field["name"]
        for section in ("entities", "request")
        for field in signature[SECTIONS[section]]
        if field["name"] not in given[section]
    ]
    if missing:
        raise click.UsageError(f"model '{model}' needs {' '.join(f'{name}=VALUE' for name in missing)} too")


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
    project: Path,
    model: str,
    version: int | None,
    clock: datetime.datetime | None,
    body: dict[str, Any],
    signature: dict[str, Any],
) -> dict[str, Any]:
    """The engine's answer, with the statuses of the features that it read and what there is to know about them."""
    from headrace import Engine
    from headrace_control.projects import newer_than, to_us

    clock_us = None if clock is None else to_us(clock)
    with Engine(project, clock_us=clock_us) as engine:
        answer = engine.predict(model, version=version, **body)
        warnings = []
        if clock is not None and signature["service"] is not None:
            views = json.loads(engine.store.applied.service(signature["service"]))["views"]
            warnings += newer_than(engine.store, clock, views)
        statuses = read_statuses(engine, signature, body, clock_us)
    if valueless := describe_statuses(statuses):
        warnings.append(valueless)
    return {**answer, "feature_statuses": statuses, "warnings": warnings}


def read_statuses(
    engine: Engine, signature: dict[str, Any], body: dict[str, Any], clock_us: int | None
) -> dict[str, str]:
    """The status of each feature that was not given with the request; none where the service could not be read."""
    from headrace import HeadraceError

    taken = [field["name"] for field in signature["features"] if field["name"] not in body.get("features", {})]
    if signature["service"] is None or not taken:
        return {}
    try:
        plan = engine.store.online_plan(signature["service"])
        read = plan.read(body.get("entities", {}), body.get("request", {}), now_us=clock_us)
    except HeadraceError:  # features were given in place of those whose keys are missing here
        return {}
    return {name: read["statuses"][name][0] for name in taken}


def describe_statuses(statuses: dict[str, str]) -> str | None:
    """How many features have no value, why, and which; `None` when each has one."""
    without: dict[str, list[str]] = {}
    for name, status in statuses.items():
        if status != "PRESENT":
            without.setdefault(status, []).append(name)
    if not without:
        return None
    count = sum(map(len, without.values()))
    parts = "; ".join(f"{len(names)} {status} ({', '.join(names)})" for status, names in sorted(without.items()))
    return f"{count} of {len(statuses)} features have no value: {parts}"


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
        if name == "explanation":
            explanations = value if isinstance(value, list) else [value]
            shown += [line for one in explanations for line in explanation_lines(one)]
            continue
        text = ", ".join(f"{label} {score}" for label, score in value.items()) if isinstance(value, dict) else value
        shown.append(f"{name.ljust(7)} {text}")
    return shown


def explanation_lines(explanation: dict[str, Any] | None) -> list[str]:
    """What each feature adds to one margin, the largest first."""
    if explanation is None:
        return []
    parts = sorted(explanation["contributions"].items(), key=lambda one: -abs(one[1] or 0.0))
    if "others" in explanation:
        parts.append(("other features", explanation["others"]))
    width = max((len(name) for name, _ in parts), default=0)
    shown = [f"  {name.ljust(width)}  {value:+.6g}" for name, value in parts if value is not None]
    return [f"why     the expected margin {explanation['expected']:.6g}, and", *shown]
