"""Where the server's traces go: the section [traces] of headrace.toml, and OpenTelemetry's environment variables."""

from __future__ import annotations

import os
import socket
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace import _native
from headrace.config import Config
from headrace.errors import make_error, nearest_hint

RATIO = "traceidratio"
PARENT = "parentbased_"
SAMPLERS = tuple(prefix + name for prefix in ("", PARENT) for name in ("always_on", "always_off", RATIO))


def traces_of(config: Config, environ: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """What the server is told of its traces; None where there is no endpoint, or traces are switched off.

    Raises:
        InputError: a setting or a variable is wrong; the message names it.
    """
    environment = os.environ if environ is None else environ
    section = config.traces
    is_off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    endpoint = section.endpoint or _endpoint(environment)
    if is_off or not endpoint or environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() == "none":
        return None
    if section.sampler or "OTEL_TRACES_SAMPLER" not in environment:
        sampler, share = section.sampler or PARENT + RATIO, section.sample
    else:
        sampler = environment["OTEL_TRACES_SAMPLER"].strip()
        share = _share(environment.get("OTEL_TRACES_SAMPLER_ARG", "1"))
    if sampler not in SAMPLERS:
        raise make_error(
            "invalid_argument", f"the traces' sampler is '{sampler}'", nearest_hint(sampler, SAMPLERS, "samplers")
        )
    name = sampler.removeprefix(PARENT)
    return {
        "endpoint": endpoint,
        "ratio": share if name == RATIO else float(name == "always_on"),
        "is_parent_based": sampler.startswith(PARENT),
        "resource": _resource(config, environment),
        "headers": _headers(config, environment),
    }


def _endpoint(environment: Mapping[str, str]) -> str:
    """The address of traces is taken as it is; that of all signals gets the path of traces."""
    own = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    if own:
        return own
    shared = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    return shared.rstrip("/") + "/v1/traces" if shared else ""


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise make_error(
            "invalid_argument", f"OTEL_TRACES_SAMPLER_ARG is '{text}'", "give a share from 0 to 1"
        ) from None


def _resource(config: Config, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    given = dict(_pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", "")))
    name = config.traces.service_name or environment.get("OTEL_SERVICE_NAME", "").strip()
    given["service.name"] = name or given.get("service.name") or f"headrace-{config.name}"
    ours = {
        "service.version": _native.__version__,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        "host.name": socket.gethostname(),
        "process.pid": str(os.getpid()),
        "telemetry.sdk.name": "headrace",
        "telemetry.sdk.language": "rust",
        "telemetry.sdk.version": _native.__version__,
    }
    return list({**ours, **given}.items())


def _headers(config: Config, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    if not config.traces.headers:
        variables = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
        given = next((environment[name] for name in variables if environment.get(name)), "")
        return _pairs(given)
    return [(name, _secret(config.root, name, value, environment)) for name, value in config.traces.headers.items()]


def _secret(root: Path, name: str, value: str, environment: Mapping[str, str]) -> str:
    kind, _, place = value.partition(":")
    if kind == "env":
        if place not in environment:
            raise make_error(
                "invalid_argument", f"traces.headers.{name} is read from {place}, which is not set", f"set {place}"
            )
        return environment[place].strip()
    if kind == "file":
        try:
            return (root / place).read_text("utf-8").strip()
        except OSError as error:
            raise make_error(
                "invalid_argument", f"traces.headers.{name} cannot be read: {error}", "name a file that may be read"
            ) from None
    return value


def _pairs(text: str) -> list[tuple[str, str]]:
    """`name=value` pairs between commas, percent-encoded. What is no pair is left out, as OpenTelemetry has it."""
    pairs = (item.partition("=") for item in text.split(","))
    unquoted = ((urllib.parse.unquote(name.strip()), urllib.parse.unquote(value.strip())) for name, _, value in pairs)
    return [(name, value) for name, value in unquoted if name and value]
