"""A project's folder: its settings, and the definitions in its `features/*.py`."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
import types
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headrace import _native
from headrace import definitions as words
from headrace.compiler import check_inputs_used, compile_plan
from headrace.config import Config, load_config
from headrace.definitions import Definition, Entity, FeatureService, FeatureView, OnDemandFeatureView
from headrace.errors import DefinitionError, HeadraceError, make_error
from headrace.functions import PACKAGE_OF_DEFINITIONS, check_functions


@dataclass(frozen=True)
class Project:
    """A folder with a headrace.toml."""

    config: Config

    @classmethod
    def open(cls, root: str | os.PathLike[str] = ".") -> Project:
        """Reads the settings; the definitions are read when they are asked for.

        Raises:
            UnknownNameError: `not_found`, the folder has no headrace.toml.
            InputError: the settings are wrong.
        """
        return cls(load_config(root))

    def definitions(self) -> list[Definition]:
        """Runs `features/*.py` in the order of their names and collects the definitions among their variables.

        The files form a package, so that one may say `from .entities import airport`.

        Raises:
            DefinitionError: a file fails; the message names file and line.
        """
        folder = self.config.features
        paths = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
        if not paths:
            raise make_error(
                "not_found", f"there are no definitions in {folder}", "write them in files that end in .py"
            )
        package = PACKAGE_OF_DEFINITIONS + hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
            del sys.modules[name]
        module = types.ModuleType(package)
        module.__path__ = [str(folder)]
        sys.modules[package] = module
        found: dict[int, Definition] = {}
        for path in paths:
            for value in vars(_run(package, path)).values():
                if isinstance(value, Entity | FeatureView | OnDemandFeatureView | FeatureService):
                    found[id(value)] = value
        return list(found.values())

    def compile(self) -> _native.Plan:
        """The plan of the project's definitions.

        Raises:
            DefinitionError: the definitions are wrong, be it by an unknown name; the slug tells how.
            UnknownNameError: `not_found`, there are no definitions.
            ProcessError: `unavailable`, a function is compiled by Numba, which is not installed.
        """
        definitions = self.definitions()
        try:
            plan = _native.Plan.from_json(compile_plan(self.config.name, definitions))
            check_inputs_used(definitions)
        except HeadraceError as error:
            place = _place_of_fault(definitions, error.message)
            message = f"{place}: {error.message}" if place else error.message
            raise DefinitionError(error.code, message, error.hint) from error
        check_functions(plan)
        return plan


def _place_of_fault(definitions: Iterable[Definition], message: str) -> str | None:
    """File and line of the field with an expression that an error of the compiler names."""
    named = re.match(r"(?:service '[^']*': )?view '([^']*)': field '([^']*)': ", message)
    if named is None:
        return None
    views = [view for one in definitions for view in (_views_of(one))]
    fields = [field for view in views if view.name == named[1] for field in view.schema]
    return next((field.place for field in fields if field.name == named[2]), None)


def _views_of(definition: Definition) -> list[OnDemandFeatureView]:
    if isinstance(definition, FeatureService):
        views = (part.view for part in definition.selections())
        return [view for view in views if isinstance(view, OnDemandFeatureView)]
    return [definition] if isinstance(definition, OnDemandFeatureView) else []


def _run(package: str, path: Path) -> types.ModuleType:
    name = f"{package}.{path.stem}"
    if name in sys.modules:  # another file has imported it
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise make_error("invalid_definition", f"{path} cannot be imported", "give it a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _located(path, error) from error
    return module


def _located(path: Path, error: Exception) -> DefinitionError:
    """The error with the file and line of the definition that caused it; its slug stays."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename or path}:{error.lineno or 0}"
    else:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == path.parent
        ]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(path)
    if isinstance(error, HeadraceError):
        return DefinitionError(error.code, f"{place}: {error.message}", error.hint)
    said = error.msg if isinstance(error, SyntaxError) else str(error)  # its text would repeat the place
    hint = _did_you_mean(error) or "correct that line"
    return DefinitionError("invalid_definition", f"{place}: {type(error).__name__}: {said}", hint)


_UNEXPECTED = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")


def _did_you_mean(error: Exception) -> str | None:
    """The nearest method or argument to one that does not exist."""
    close: list[str] = []
    if isinstance(error, AttributeError) and error.name is not None:
        known = [name for name in dir(error.obj) if not name.startswith("_")]
        close = difflib.get_close_matches(error.name, known, n=1)
    elif isinstance(error, TypeError) and (found := _UNEXPECTED.match(str(error))):
        kind = getattr(words, found[1], None)
        if isinstance(kind, type):
            close = difflib.get_close_matches(found[2], list(inspect.signature(kind).parameters), n=1)
    return f"did you mean '{close[0]}'?" if close else None
