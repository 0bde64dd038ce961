from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace import DefinitionError, FeatureStore, HeadraceError


def redefine(root: Path, old: str, new: str) -> None:
    path = root / "features/all.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def register(root: Path, name: str, service: str | None) -> None:
    folder = root / ".headrace/models" / name / "3"
    folder.mkdir(parents=True)
    signature = {"service": service, "features": [{"name": "temp", "dtype": "float64"}]}
    (folder / "model.json").write_text(json.dumps({"signature": signature}))


def test_plan_tells_and_apply_does(weather_project: Path) -> None:
    store = FeatureStore(weather_project)
    diff = store.plan()
    assert bool(diff)
    assert {str(change) for change in diff.added} >= {"entity airport", "feature view weather", "feature service risk"}
    assert "field 'headwind': float64 = cos(radians(col(\"wind_dir\")))" in str(diff)
    assert store.plans.head() is None, "plan changes nothing"
    assert store.apply().digest == diff.digest == store.applied.digest
    assert not store.plan()
    assert str(store.plan()) == "no changes"


def test_a_plan_is_a_file_named_by_its_digest(weather_project: Path) -> None:
    store = FeatureStore(weather_project)
    digest = store.apply().digest
    path = weather_project / ".headrace/plans" / f"{digest.replace(':', '-')}.json"
    assert json.loads(path.read_text())["project"] == "project"
    path.write_text(path.read_text() + " ")
    with pytest.raises(HeadraceError, match="does not have the digest") as raised:
        FeatureStore(weather_project).applied  # noqa: B018
    assert raised.value.code == "corrupt_store"


def test_every_applied_plan_is_kept(weather_project: Path) -> None:
    store = FeatureStore(weather_project)
    first = store.apply().digest
    redefine(weather_project, "timedelta(hours=3)", "timedelta(hours=2)")
    second = store.apply()
    assert second.digest != first
    assert [str(change) for change in second.changed] == ["feature view weather"]
    assert store.plans.load(first) != store.plans.load(second.digest)


def test_a_changed_type_is_refused_with_the_services_and_models_it_would_break(weather_project: Path) -> None:
    store = FeatureStore(weather_project)
    applied = store.apply().digest
    register(weather_project, "late", "risk")
    register(weather_project, "other", "gates")
    redefine(weather_project, 'Field("temp", Float64)', 'Field("temp", Int64)')
    [breaking] = store.plan().breaking
    assert (breaking.name, breaking.field, breaking.old, breaking.new) == ("weather", "temp", "float64", "int64")
    with pytest.raises(
        DefinitionError, match=r"weather\.temp: float64 -> int64 would break service risk, model late/3"
    ):
        store.apply()
    assert store.applied.digest == applied, "nothing has changed"


def test_of_a_changed_source_only_what_changes_is_told(weather_project: Path) -> None:
    store = FeatureStore(weather_project)
    store.apply()
    rename = 'event_ts="time_hour", rename={"t": "temp"}'
    redefine(weather_project, 'event_ts="time_hour"', rename)
    [change] = store.plan().changed
    assert change.details == ('source.rename.t: null -> "temp"',)
    redefine(weather_project, rename, 'event_ts="hour"')
    [change] = store.plan().changed
    assert change.details == ('source.event_ts: "time_hour" -> "hour"',)


def test_each_break_is_a_line_of_its_own(weather_project: Path) -> None:
    store = FeatureStore(weather_project)
    store.apply()
    redefine(weather_project, 'Field("temp", Float64)', 'Field("temp", Int64)')
    redefine(weather_project, 'Field("runways", Int64)', 'Field("runways", String)')
    with pytest.raises(DefinitionError) as raised:
        store.apply()
    assert [line.split(":")[0].strip() for line in raised.value.message.splitlines()] == [
        "runway.runways",
        "weather.temp",
    ]


def test_a_new_name_is_the_way_out(weather_project: Path) -> None:
    store = FeatureStore(weather_project)
    store.apply()
    path = weather_project / "features/all.py"
    path.write_text(
        path.read_text()
        + '\nweather2 = FeatureView("weather2", [airport], [Field("temp", Int64)], FileSource("w.csv"))\n'
    )
    assert store.apply().added[0].name == "weather2"


def test_a_removed_view_that_nothing_uses_is_no_break(weather_project: Path) -> None:
    store = FeatureStore(weather_project)
    store.apply()
    text = (weather_project / "features/all.py").read_text()
    (weather_project / "features/all.py").write_text(text.replace('gates = FeatureService("gates", [gate])', ""))
    diff = store.plan()
    assert [str(change) for change in diff.removed] == ["feature service gates"]


def test_a_feature_that_a_model_takes_stays_in_its_service(weather_project: Path) -> None:
    store = FeatureStore(weather_project)
    store.apply()
    register(weather_project, "late", "risk")
    old = 'FeatureService("risk", [weather, runway, departure])'
    redefine(weather_project, old, 'FeatureService("risk", [weather[["temp"]], departure])')
    store.apply()  # the model does not take what is gone
    redefine(weather_project, '[weather[["temp"]], departure]', "[departure]")
    message = r"service risk\.temp: weather\.temp: float64 -> removed would break model late/3"
    with pytest.raises(DefinitionError, match=message):
        store.apply()
    redefine(weather_project, 'risk = FeatureService("risk", [departure])', "")
    [breaking] = store.plan().breaking
    assert str(breaking) == "service risk: service of 3 features -> removed would break model late/3"


def test_a_model_that_is_still_being_written_is_no_model(weather_project: Path) -> None:
    (weather_project / ".headrace/models/late/.4.tmp").mkdir(parents=True)
    (weather_project / ".headrace/models/late/.4.tmp/model.json").write_text("{")
    FeatureStore(weather_project).apply()


def test_a_manifest_that_cannot_be_read_is_named(weather_project: Path) -> None:
    register(weather_project, "late", None)
    (weather_project / ".headrace/models/late/3/model.json").write_text("{")
    with pytest.raises(HeadraceError, match=r"models/late/3/model\.json cannot be read"):
        FeatureStore(weather_project).plan()


def test_nothing_works_before_apply_and_says_so(weather_project: Path) -> None:
    with pytest.raises(HeadraceError, match="no plan has been applied") as raised:
        FeatureStore(weather_project).materialize()
    assert raised.value.hint == "run `headrace apply`"
