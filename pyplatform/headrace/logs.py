"""The log of a server's process: what Python code says goes out in the form of the server's own lines."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from headrace import _native


class ServerLogHandler(logging.Handler):
    """Writes records as lines of the server's log. A record's event is what `extra={"event": ...}` names."""

    def __init__(self, engine: _native.Engine, form: str) -> None:
        """`form` is "text" or "json"."""
        super().__init__()
        self._engine = engine
        self._form = form

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {"logger": record.name}
            if record.exc_info is not None and record.exc_info[0] is not None:
                # Where it was raised, and not what it says: that may hold a value.
                frames = traceback.extract_tb(record.exc_info[2])
                fields["exception"] = record.exc_info[0].__name__
                fields["place"] = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            event = getattr(record, "event", "log")
            _native.write_log(self._engine, self._form, record.levelno, str(event), record.getMessage(), fields)
        except Exception:
            self.handleError(record)


@contextmanager
def server_log(engine: _native.Engine, form: str) -> Iterator[None]:
    """While it lasts, `logging` and warnings of this process are lines of the server's log.

    Where the program has set up `logging` itself, nothing changes.
    """
    root = logging.getLogger()
    if root.handlers:
        yield
        return
    handler = ServerLogHandler(engine, form)
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
