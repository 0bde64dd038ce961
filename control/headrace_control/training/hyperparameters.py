"""The `params` of a [[model]], checked by the library that takes them: on its own, it passes over a misspelled name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from headrace.errors import HeadraceError, nearest_hint
from headrace_control.errors import ControlError
from headrace_control.training.config import ModelConfig

_UNUSED = re.compile(r"Parameters: \{(.*?)\} are not used", re.DOTALL)
# Where in its own sources a library noticed the fault says nothing to whoever reads the message.
_SOURCE_PLACE = re.compile(r"^\[\d\d:\d\d:\d\d\] \S+:\d+: | at /\S+, line \d+ ?\.?")


@contextmanager
def refusals(config: ModelConfig) -> Iterator[None]:
    """What the library raises in the block becomes a refusal that names the [[model]] and its params.

    Raises:
        ControlError: `invalid_definition`.
    """
    try:
        yield
    except (ControlError, HeadraceError, MemoryError):
        raise
    except Exception as error:  # each library has its own errors, and raises TypeError and ValueError too
        lines = _SOURCE_PLACE.sub("", str(error).strip()).strip().splitlines() or [type(error).__name__]
        given = ", ".join(f"{name} = {value!r}" for name, value in config.params.items()) or "none"
        raise ControlError(
            "invalid_definition",
            f"[[model]] '{config.name}': {config.library} refuses to train: {lines[0]}",
            f"correct its params in headrace.toml: {given}",
        ) from error


def check_lightgbm(config: ModelConfig) -> None:
    """Refuses a name that LightGBM does not know.

    Raises:
        ControlError: `invalid_definition`.
    """
    from lightgbm.basic import _ConfigAliases

    known: dict[str, list[str]] = _ConfigAliases._get_all_param_aliases()
    names = {name for main, aliases in known.items() for name in (main, *aliases)}
    _refuse_unknown(config, [name for name in config.params if name not in names], known)


def check_xgboost(config: ModelConfig, params: dict[str, Any], rows: Any) -> None:
    """Refuses a name that XGBoost does not use for this model; nothing is trained for it.

    Args:
        config: the model.
        params: all that XGBoost will be given.
        rows: the matrix to train on.

    Raises:
        ControlError: `invalid_definition`.
    """
    import xgboost

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        xgboost.Booster({**params, "validate_parameters": True, "verbosity": 1}, [rows]).save_config()
    said = " ".join(found for item in caught for found in _UNUSED.findall(str(item.message)))
    unused = re.findall(r'"(.*?)"', said)
    # The names of the scikit-learn interface are the documented ones, and not tied to a kind of model.
    _refuse_unknown(config, [name for name in config.params if name in unused], xgboost.XGBModel().get_params())


def _refuse_unknown(config: ModelConfig, unknown: list[str], known: Iterable[str]) -> None:
    for name in unknown:
        close = nearest_hint(name, known, "parameters")
        # Without a near one the list of all parameters would say nothing.
        hint = f"{close.partition('?')[0]}? " if "?" in close else f"see the parameters of {config.library}; "
        raise ControlError(
            "invalid_definition",
            f"[[model]] '{config.name}': {config.library} has no use for '{name}' in params",
            hint + "correct it in headrace.toml",
        )
