"""What the blocking and the asyncio client have in common: options, and what to do about an answer."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

from headrace.client import http_calls
from headrace.client.arguments import seconds_of
from headrace.client.attempts import Attempts, Call, Result, Retries, RetryBudget
from headrace.client.failures import Failure, refuse_argument, unreadable
from headrace.client.options import Address, Tls, address_of, api_key_of

ADDRESS = "http://127.0.0.1:8000"
NO_RETRIES = Retries(attempts_max=1)
NOT_READY = {
    "unavailable",
    "deadline_exceeded",
    "unknown_model",
    "unknown_model_version",
    "model_failed",
    "corrupt_model",
}
"""Slugs that say no when somebody asks whether a server or a model is ready."""


class ClientBase:
    """See `Client`."""

    def __init__(
        self,
        address: str,
        timeout: float,
        api_key: str | None,
        api_key_file: str | os.PathLike[str] | None,
        tls: Tls | None,
        retries: Retries | None,
        connections_max: int,
        transports: tuple[Any, Any],
    ) -> None:
        self.address: Address = address_of(address)
        self.timeout = seconds_of(timeout, timeout)
        self._retries = retries or Retries()
        self._budget = RetryBudget(self._retries.budget)
        if tls is not None and not self.address.is_encrypted:
            refuse_argument(f"{self.address} is not encrypted", "leave tls out, or connect to https:// or grpcs://")
        if connections_max < 1:
            refuse_argument(f"connections_max is {connections_max}", "give 1 or more")
        made = transports[self.address.is_grpc]
        self._transport: Any = made(self.address, api_key_of(api_key, api_key_file), tls, connections_max)
        self._calls = _calls(self.address)

    def _attempts(self, call: Call[Any, Any, Any], timeout: float | None, retries: Retries | None = None) -> Attempts:
        return Attempts(call, retries or self._retries, self._budget, seconds_of(timeout, self.timeout))

    def _read(self, call: Call[Any, Any, Result], answer: Any) -> Result:
        try:
            return call.read(answer)
        except (
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
            RecursionError,
            ArithmeticError,
        ) as error:
            raise unreadable(str(self.address), str(error) or type(error).__name__) from error
        except Exception as error:
            if type(error).__name__ != "DecodeError":  # protobuf's, which is there only with gRPC
                raise
            raise unreadable(str(self.address), error) from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.address)!r})"


def _calls(address: Address) -> ModuleType:
    """The module that makes this transport's calls: both have the same functions."""
    if not address.is_grpc:
        return http_calls
    from headrace.client import grpc_calls

    return grpc_calls


__all__ = ["ADDRESS", "NOT_READY", "NO_RETRIES", "ClientBase", "Failure"]
