"""Serving over HTTP and gRPC: the engine's Rust listeners in this process, until a signal asks them to stop.

No frame library is imported here, so a server starts fast and stays small.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
from collections.abc import Callable, Mapping
from typing import Any

from headrace import _native
from headrace.config import ServerSection
from headrace.engine import Engine
from headrace.logs import server_log
from headrace.traces import traces_of

_log = logging.getLogger(__name__)


def serve(
    engine: Engine,
    settings: ServerSection | None = None,
    on_ready: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Answers requests until SIGINT or SIGTERM; what has begun by then is ended. Call it on the main thread.

    What other processes apply, write and register meanwhile is brought in every `refresh_seconds`.

    Args:
        engine: what answers.
        settings: the section `server` of headrace.toml; by default that of the engine's project.
        on_ready: called with `{"http": "127.0.0.1:8000", "grpc": .., "metrics": .., "tls": False}` once connections
            are taken.

    Raises:
        ProcessError: `port_busy`, naming the address.
        InputError: a setting is wrong.
        AccessError: `permission_denied`, an address that other machines reach without an access file.
    """
    chosen = engine.store.config.server if settings is None else settings
    config = dataclasses.asdict(chosen)
    if not config.pop("grpc"):
        config["grpc_port"] = None
    elif chosen.http_port == 0 and chosen.grpc_port == ServerSection.grpc_port:
        # A free port is asked for where several servers run, which cannot share this one either.
        config["grpc_port"] = 0
    config["traces"] = traces_of(engine.store.config)
    tick_seconds = config.pop("refresh_seconds")
    writer = None
    if config.pop("writes"):
        writer = Writer(engine)
    else:
        config["writes_max"] = 0
    config["access"] = str(engine.store.config.root / chosen.access) if chosen.access else None
    if chosen.insecure_no_auth and not chosen.access:
        _log.warning("everybody who reaches this server may do everything: insecure_no_auth is set")
    callbacks = {
        "notice": _log.warning,
        "ready": on_ready,
        "tick": _Refresh(engine),
        "write": writer,
        "change_model": ModelControl(engine) if config.pop("model_control") else None,
    }
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with server_log(engine.native, chosen.log):
            _native.serve(engine.native, config, callbacks, tick_seconds)
    finally:
        signal.signal(signal.SIGTERM, previous)


class Writer:
    """Makes the writes that clients ask for. The frame library is imported by the first one."""

    def __init__(self, engine: Engine) -> None:
        self._store = engine.store
        self._store.on_new_table(engine.refresh)

    def __call__(
        self, view: str, frame: Any, wrong: list[tuple[int, str]], event_ts_us: int | None, is_deletion: bool
    ) -> str:
        if is_deletion:
            counts = self._store.delete_rows(view, frame, event_ts_us)
        else:
            counts = self._store.push_rows(view, frame, dict(wrong))
        return json.dumps(dataclasses.asdict(counts))


class ModelControl:
    """Loads and unloads the models that clients name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, model: str, is_loaded: bool) -> None:
        if is_loaded:
            self._engine.load_model(model)
        else:
            self._engine.unload_model(model)


class _Refresh:
    """Brings in what others have written. While that fails the server goes on with what it has, and says so once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fault: str | None = None

    def __call__(self) -> None:
        try:
            self._engine.refresh()
        except Exception as error:
            if str(error) != self._fault:
                self._fault = str(error)
                _log.warning("what others have written cannot be read, so answers are as of before: %s", error)
            return
        if self._fault is not None:
            self._fault = None
            _log.warning("what others have written can be read again")
