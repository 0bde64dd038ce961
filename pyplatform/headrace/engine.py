"""`Engine`: predictions inside this process.

```python
engine = Engine("flights")
answer = engine.predict("departure_risk_lightgbm", entities={"origin": ["JFK"], ..}, request={"planned_departure":
[..]})
```

No frame library is imported here: `headrace serve` runs the same engine.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from headrace import _native
from headrace.arguments import service_name, time_us
from headrace.config import CONSISTENCY_FILE, PAYLOAD_FOLDER, Config
from headrace.errors import HeadraceError, UnknownNameError
from headrace.feature_store import FeatureStore
from headrace.functions import bind_functions
from headrace.registry import model_manifests
from headrace.runtimes import find_runtimes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.definitions import FeatureService

LOG = logging.getLogger("headrace.engine")

Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, size, modification and change time (ns) of each file in a folder. The change time also tells a file that was
put back with its old modification time."""


def stamp_of(folder: Path) -> Stamp | None:
    """What tells whether a version folder has changed; None when it goes away meanwhile."""
    try:
        with os.scandir(folder) as entries:
            files = [(entry.name, entry.stat()) for entry in entries]
    except FileNotFoundError:
        return None
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in files))


def _payload_log(config: Config) -> dict[str, Any] | None:
    """The settings of the payload log, as the engine takes them; None where nothing is sampled."""
    if not config.payload.sample:
        return None
    return {"folder": config.state / PAYLOAD_FOLDER, **dataclasses.asdict(config.payload)}


class Engine:
    """A project's models and features, ready to be asked. Threads may share it; after a fork, make another one."""

    def __init__(
        self, project: str | os.PathLike[str] | FeatureStore = ".", *, clock_us: int | dt.datetime | None = None
    ) -> None:
        """Loads the plan in force, what the online store holds, and every registered model.

        The store is read, not locked: another process may go on writing, and `refresh` brings what it wrote. An
        engine over a
        FeatureStore that writes sees each write at once.

        Args:
            project: the project's folder, or its open FeatureStore.
            clock_us: a clock that stands still at this time (microseconds UTC, or a datetime) until `set_clock`; None
                is the machine's.

        Raises:
            UnknownNameError: `not_found`, the folder is no project.
            StoreError: `corrupt_store`.
        """
        self._owns_store = not isinstance(project, FeatureStore)
        self._process = os.getpid()
        self.store = project if isinstance(project, FeatureStore) else FeatureStore(project)
        self.native = _native.Engine(
            clock_us=None if clock_us is None else time_us("clock_us", clock_us),
            payload=_payload_log(self.store.config),
            queue=dataclasses.asdict(self.store.config.queue),
        )
        self.faults: dict[str, HeadraceError] = {}
        """`NAME/VERSION` of the models that could not be loaded, and why."""
        self._loaded: dict[Path, Stamp] = {}
        """The version folders that have been tried, as they were then."""
        self._unwanted: set[str] = set()
        """Names of the models that were unloaded."""
        self._models_lock = threading.RLock()
        """Held while models are loaded, which may take long; never while the store is locked."""
        self._installed: tuple[str, _native.LocalStore] | None = None
        self._verified: Stamp | None = None
        self._bring_in_store()
        self._bring_in_models()
        if not self._owns_store:
            self.store.on_new_table(self._bring_in_store)  # the writer's thread brings in a new table, too

    def refresh(self) -> None:
        """Brings in what other processes have applied, written, registered, repaired and deleted since.

        A model version that cannot be loaded is in `faults`, and logged once for each change of its folder. If it was
        loaded before, it goes on answering as it was.
        """
        before = dict(self.faults)
        with self.store.locked():
            self._bring_in_store()
        self._bring_in_models()
        for key, fault in self.faults.items():
            if before.get(key) is not fault:
                LOG.warning("model %s cannot be loaded: %s", key, " ".join(str(fault).split()))

    def add_fixtures(self) -> None:
        """Adds the models that Triton's example clients ask: `simple`, `simple_string` and `simple_identity`."""
        self.native.add_fixtures()

    def load_model(self, model: str) -> None:
        """Loads a model's registered versions, also those that are loaded: they answer until they are replaced.

        Raises:
            UnknownNameError: `unknown_model`, none is registered.
            HeadraceError: why its highest version cannot be loaded; what was loaded before goes on answering.
        """
        with self._models_lock:
            folders = [folder for folder in self._model_folders() if folder.parent.name == model]
            if not folders:
                message = f"no version of a model '{model}' is registered"
                raise UnknownNameError("unknown_model", message, "`headrace register` makes one")
            self._unwanted.discard(model)
            for folder in folders:
                self._load(folder, stamp_of(folder))
            highest = max(folders, key=lambda folder: int(folder.name))
            if fault := self.faults.get(f"{model}/{highest.name}"):
                raise fault

    def unload_model(self, model: str) -> None:
        """Takes a model's versions out until `load_model`: registering another version does not bring it back.

        Requests that run on it end normally.

        Raises:
            UnknownNameError: `unknown_model`.
        """
        with self._models_lock:
            self.native.unload_model(model)
            self._unwanted.add(model)
            for folder in [folder for folder in self._loaded if folder.parent.name == model]:
                del self._loaded[folder]
                self.faults.pop(f"{model}/{folder.name}", None)

    def _bring_in_store(self) -> None:
        if self.store.plans.head() is not None:
            online = self.store.open_online()
            online.refresh()
            current = (online.plan.digest, online.local)
            if self._installed is None or current[0] != self._installed[0] or current[1] is not self._installed[1]:
                bind_functions(online.plan, self.store.project)
                self.native.install(online.plan, online.local)
                self._installed = current
            self.native.note_applied(online.next_sequence)
        self._bring_in_verification()

    def _bring_in_models(self) -> None:
        with self._models_lock:
            folders = [folder for folder in self._model_folders() if folder.parent.name not in self._unwanted]
            for folder in self._loaded.keys() - set(folders):
                self._forget_model(folder)
            for folder in folders:
                stamp = stamp_of(folder)
                if self._loaded.get(folder) != stamp:
                    self._load(folder, stamp)

    def _model_folders(self) -> list[Path]:
        return [manifest.parent for manifest in model_manifests(self.store.config.state / "models")]

    def _load(self, folder: Path, stamp: Stamp | None) -> None:
        # A folder that is being deleted has no stamp: it is gone at the next refresh.
        if stamp is not None:
            self._loaded[folder] = stamp
            self._add_model(folder)

    def _bring_in_verification(self) -> None:
        """What `headrace verify consistency` has found last goes into the metrics."""
        path = self.store.config.state / CONSISTENCY_FILE
        try:
            stat = path.stat()
            stamp = ((path.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns),)
            if stamp != self._verified:
                self._verified = stamp
                self.native.set_consistency(path.read_text("utf-8"))
        except FileNotFoundError:
            self.native.set_consistency(None)
        except (HeadraceError, UnicodeDecodeError) as error:
            LOG.warning("%s is not shown in the metrics: %s", path, error)

    def _add_model(self, folder: Path) -> None:
        key = f"{folder.parent.name}/{folder.name}"
        try:
            self.native.add_model(folder, find_runtimes(self.store.config.models))
            self.faults.pop(key, None)
        except HeadraceError as error:
            self.faults[key] = error

    def _forget_model(self, folder: Path) -> None:
        del self._loaded[folder]
        self.faults.pop(f"{folder.parent.name}/{folder.name}", None)
        if folder.name == str(int(folder.name)):  # a folder `007` never was version 7
            self.native.forget_model(folder.parent.name, int(folder.name))

    def predict(
        self,
        model: str,
        *,
        entities: Mapping[str, Sequence[Any]] | None = None,
        request: Mapping[str, Sequence[Any]] | None = None,
        features: Mapping[str, Sequence[Any]] | None = None,
        outputs: Sequence[str] | None = None,
        version: int | None = None,
        id: str | None = None,  # noqa: A002 (the member's name in the Common API)
        explain: bool | Mapping[str, int] = False,
    ) -> dict[str, Any]:
        """Predicts some rows.

        Args:
            model: its name.
            entities: join key -> values, one for each row; the engine looks their features up.
            request: request field -> values, for on-demand features.
            features: feature -> values that replace the stored ones; `text` or `tokens` (a list for each row) of a
                model of sequences, whose predictions have of `text`, `tokens`, `score` and `scores` what it gives.
            outputs: of "label", "scores" and "margin"; by default the first two.
            version: by default the highest that is ready.
            id: comes back in the answer; made up by default.
            explain: True adds to each prediction what every feature adds to its margin, `{"top": 5}` only the five that
                count most.

        Returns:
            `{"id", "api_version", "deployment", "model", "model_version", "task", "predictions": [..], "timing_us":
            {..}}`, as
            `POST /v1/deployments/MODEL/predict` answers. A row whose values cannot be used has a `status` there;
            the others are answered. With `explain` a prediction has an `explanation` (for several margins a list of
            them): `{"expected", "contributions": {feature: number}, "others"?}`, whose numbers sum to the margin.

        Raises:
            UnknownNameError: `unknown_model`, `unknown_model_version`, `unknown_entity`, `unknown_feature`.
            InputError: `missing_column`, `length_mismatch`, `too_large`.
            StoreError: the model's folder could not be loaded; `unsupported_model` for `explain` of a model that has no
                contributions.
        """
        try:
            return self.native.predict(model, entities, request, features, outputs, version, id, explain)
        except UnknownNameError as error:
            raise self._fault_of(model, version) or error from None

    def predict_arrays(
        self,
        model: str,
        *,
        entities: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
        request: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
        features: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
        outputs: Sequence[str] | None = None,
        version: int | None = None,
    ) -> dict[str, Any]:
        """As `predict`, answered in arrays instead of an object for each row: the way for many rows.

        A NumPy array of a column's own type (int64, float32, float64) is taken without a look at each value.

        Returns:
            `{"deployment", "model_version", "classes", "labels"?, "scores", "margins"?, "errors"}`: `scores` is float64
            `[rows, classes]`, for a regression `[rows, 1]` values; `labels` int64 `[rows]`, places in `classes`, for a
            classification; `margins` float64 `[rows, margins]` when `outputs` names "margin"; `errors` row -> exception
            of the rows that failed, whose scores are NaN and whose label is -1.

        Raises:
            As `predict`.
        """
        try:
            return self.native.predict_arrays(model, entities, request, features, outputs, version)
        except UnknownNameError as error:
            raise self._fault_of(model, version) or error from None

    def get_online_features(
        self,
        service: str | FeatureService,
        entities: Mapping[str, Sequence[Any]] | None = None,
        request: Mapping[str, Sequence[Any]] | None = None,
    ) -> dict[str, Any]:
        """The features of some entities now, as `POST /get-online-features` finds them, payload log included.

        Args:
            service: the feature service, or its name.
            entities: join key -> values, one for each row.
            request: request field -> values, for on-demand features.

        Returns:
            As `FeatureStore.get_online_features`; a row whose values cannot be used is INVALID.

        Raises:
            UnknownNameError: `unknown_feature_service`, `unknown_entity`.
            InputError: `missing_column`, `length_mismatch`, `too_large`.
        """
        return self.native.get_online_features(service_name(service), entities, request)

    def _fault_of(self, model: str, version: int | None) -> HeadraceError | None:
        """Why a model that is registered is not there."""
        wanted = f"{model}/{'' if version is None else version}"
        found = [
            fault for key, fault in self.faults.items() if key == wanted or (version is None and key.startswith(wanted))
        ]
        return found[-1] if found else None

    def models(self) -> list[dict[str, Any]]:
        """Every loaded model version: name, version, platform, service, ready, and the reason if it is not."""
        return self.native.models()

    def set_clock(self, now_us: int | dt.datetime) -> None:
        """Sets the clock of an engine that was made with `clock_us`."""
        self.native.set_clock(time_us("now_us", now_us))

    def payload_stats(self) -> dict[str, int] | None:
        """What has become of the rows that were sampled for the payload log; None where there is none.

        `written_rows`, `written_segments`, `dropped_memory_rows`, `dropped_io_rows`, `waiting_rows`, `waiting_bytes`:
        each sampled row is written, dropped or waiting.
        """
        return self.native.payload_stats()

    def flush_payload(self) -> None:
        """Writes the sampled rows that wait; when this returns they can be read."""
        self.native.flush_payload()

    def close(self) -> None:
        """Writes the sampled rows that wait, ends workers of models, and closes the store if the engine opened it."""
        self.native.flush_payload()
        if os.getpid() == self._process:  # a forked child has no workers: they are its parent's
            for model in self.native.models():
                if model["platform"] == "python_class":
                    self.native.forget_model(model["name"], model["version"])
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
