"""lleaves: LightGBM models compiled with LLVM. The environment that stays on numpy 1.26."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine import Call, Engine, package
from inputs import Inputs


class Lleaves(Engine):
    """`Model.predict`, raw scores, one thread. Compiled code is kept beside the model."""

    wants = "features"
    note = "predict, n_jobs 1; compiled code cached"

    def load(self, inputs: Inputs, options: dict[str, Any]) -> None:
        self.version = version("lleaves")
        model = package("lleaves").Model(model_file=options["model"])
        compiled = Path(options["model"]).with_suffix(f".lleaves-{self.version}")
        if not compiled.exists():
            unfinished = compiled.with_name(compiled.name + ".partial")
            unfinished.unlink(missing_ok=True)
            model.compile(cache=str(unfinished), raw_score=True)
            unfinished.replace(compiled)
            model = package("lleaves").Model(model_file=options["model"])
        model.compile(cache=str(compiled), raw_score=True)
        self.predict = model.predict

    def caller(self, rows: int) -> Call:
        predict = self.predict
        return lambda features: predict(features, n_jobs=1)


ENGINES: dict[str, Callable[[], Engine]] = {"lleaves": Lleaves}
JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
