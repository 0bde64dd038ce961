"""Backups of a project: a folder that holds all that headrace keeps, made while a writer goes on, and read back.

    DIR/backup.json          what is in it: format, time, rows of the online table, each file's size and digest
    DIR/project/             headrace.toml, the definitions, and .headrace as `restore` puts it in place

The online table is read as any reader reads it, so the backup is the store at one moment. The files of sources are not
part of it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace import _native
from headrace.config import CONFIG_FILE, STATE_FOLDER, Config, load_config
from headrace.digests import canonical_json, digest_file
from headrace.errors import HeadraceError, make_error
from headrace.files import sync_tree, write_atomic
from headrace.history import copy_history, position
from headrace.online_log import OnlineLog, WriterLock
from headrace.online_store import FORMAT as ONLINE_FORMAT
from headrace.online_store import OnlineStore
from headrace.registry import PlanFolder

FORMAT = 1
_COPIED = ("plans", "models", "datasets", "dead-letter", "erasures", "payload")
_COPY_ATTEMPTS_MAX = 5


def make_backup(config: Config, target: Path, now_us: int) -> dict[str, Any]:
    """Writes a backup to a new folder.

    Returns:
        What backup.json says.

    Raises:
        UnknownNameError: `not_found`, nothing has been applied.
        StoreError: `io`, the folder is not empty or there is no room; what was written is removed again.
    """
    if target.exists() and any(target.iterdir()):
        raise make_error("io", f"the folder {target} is not empty", "give a new folder for each backup")
    plan = _native.Plan.from_json(PlanFolder(config.state / "plans").load_head())
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        project = unfinished / "project"
        state = project / STATE_FOLDER
        state.mkdir(parents=True)
        shutil.copy2(config.root / CONFIG_FILE, project / CONFIG_FILE)
        if config.features.is_dir() and config.features.is_relative_to(config.root):
            place = project / config.features.relative_to(config.root)
            shutil.copytree(config.features, place, ignore=shutil.ignore_patterns("__pycache__"))
        before = {folder.name: position(folder) for folder in _history_folders(config.state)}
        rows = _copy_online(config, plan, state / "online")
        _copy_history(config.state, state, before, rows)
        for name in _COPIED:
            _copy_tree(config.state / name, state / name)
        document = {
            "format": FORMAT,
            "headrace": _native.__version__,
            "project": config.name,
            "created_at": dt.datetime.fromtimestamp(now_us / 1_000_000, dt.UTC).isoformat(),
            "plan": plan.digest,
            "online_rows": rows,
            "files": {str(path.relative_to(unfinished)): _described(path) for path in _files(project)},
        }
        write_atomic(unfinished / "backup.json", canonical_json(json.dumps(document)).encode())
        sync_tree(unfinished)
        if target.exists():
            target.rmdir()
        unfinished.rename(target)
    except OSError as error:
        raise make_error("io", f"the backup {target} cannot be written: {error}", "make room on the disk") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return document


def _copy_online(config: Config, plan: _native.Plan, folder: Path) -> int:
    """The online store at this moment, as a snapshot and a log that begins after it; returns the rows accepted."""
    source = OnlineStore(config.state / "online", plan, config.online, writable=False)
    rows = source.next_sequence
    folder.mkdir(parents=True)
    if not rows and not source.known:
        return 0
    meta: dict[str, Any] = {**source.known, "format": ONLINE_FORMAT, "plan_digest": plan.digest}
    meta |= {"next_sequence": rows, "snapshot_sequence": rows, "snapshot_name": f"{rows:020}"}
    if rows:
        source.local.write_snapshot(folder / "snapshot" / f"{rows:020}")
    log = OnlineLog(folder / "log", writable=True, sync=True)
    log.put_meta(meta)
    log.close()
    for path in (folder / "log").glob("LOG*"):  # RocksDB's own diary
        path.unlink()
    return rows


def _history_folders(state: Path) -> list[Path]:
    return sorted(folder for folder in (state / "history").glob("*") if folder.is_dir())


def _copy_history(state: Path, target: Path, before: dict[str, int], rows: int) -> None:
    """The pushed rows that the online copy has too: pushes that began later are left out."""
    for attempt in range(_COPY_ATTEMPTS_MAX):
        try:
            for folder in _history_folders(state):
                place = target / "history" / folder.name
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True)
                copy_history(folder, place, before.get(folder.name, 0), rows)
            return
        except FileNotFoundError:  # a compaction has replaced files
            if attempt == _COPY_ATTEMPTS_MAX - 1:
                raise


def _copy_tree(source: Path, target: Path) -> None:
    """Files that are written once, or replaced whole; those that are being written are left out."""
    if not source.is_dir():
        return
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        is_unfinished = path.suffix == ".tmp" or any(part.startswith(".") for part in relative.parts)
        if is_unfinished or not path.is_file():
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(path, target / relative)
        except FileNotFoundError:  # the oldest of the refused rows give way to newer ones
            continue


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _described(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "digest": digest_file(path)}


def read_backup(source: Path) -> dict[str, Any]:
    """What a backup says of itself, every file checked.

    Raises:
        UnknownNameError: `not_found`, there is no backup.
        StoreError: `corrupt_store`, `newer_format`.
    """
    try:
        document: dict[str, Any] = json.loads((source / "backup.json").read_text("utf-8"))
        number, files = document["format"], document["files"]
    except FileNotFoundError:
        raise make_error("not_found", f"there is no backup in {source}", "give the folder of one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise make_error(
            "corrupt_store", f"{source}/backup.json cannot be read: {error!r}", "use another one"
        ) from error
    if number > FORMAT:
        raise make_error("newer_format", f"the backup {source} has format {number}", "read it with a newer headrace")
    for name, described in files.items():
        path = source / name
        try:
            is_inside = not Path(name).is_absolute() and ".." not in Path(name).parts
            is_same = is_inside and _described(path) == described
        except (OSError, HeadraceError):
            is_same = False
        if not is_same:
            raise make_error("corrupt_store", f"{path} is not what was backed up", "use another backup")
    return document


def restore_backup(source: Path, target: Path, replace: bool = False) -> dict[str, Any]:
    """Puts a backup in place: a new project folder, or the state of one that is there.

    Args:
        source: the backup's folder.
        target: the project's folder. Its headrace.toml and definitions stay as they are where there are any.
        replace: an existing `.headrace` is moved aside, to `.headrace.before-restore`.

    Returns:
        What backup.json says, with `erasures_after`: receipts of the replaced state that the backup does not know;
        these keys are in the restored state again.

    Raises:
        StoreError: `io`, there is a state already; `store_locked`, a process writes to it; as `read_backup`.
    """
    document = read_backup(source)
    state = target / STATE_FOLDER
    aside = target / f"{STATE_FOLDER}.before-restore"
    erasures: list[str] = []
    if state.exists() and any(state.iterdir()):
        if not replace:
            raise make_error("io", f"{state} holds a store already", "restore to a new folder, or say to replace it")
        if aside.exists():
            raise make_error("io", f"{aside} is there from a restore before", "remove it, or move it away")
        erasures = sorted(path.stem for path in (state / "erasures").glob("*.json"))
    unfinished = target / f"{STATE_FOLDER}.restoring"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source / "project" / STATE_FOLDER, unfinished)
        sync_tree(unfinished)
        _put_in_place(state, unfinished, aside)
        for path in _files(source / "project"):
            relative = path.relative_to(source / "project")
            place = target / relative
            if relative.parts[0] != STATE_FOLDER and not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, place)
    except OSError as error:
        raise make_error("io", f"{target} cannot be restored: {error}", "make room on the disk") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    load_config(target)
    known = {path.stem for path in (source / "project" / STATE_FOLDER / "erasures").glob("*.json")}
    return {**document, "erasures_after": [one for one in erasures if one not in known]}


def _put_in_place(state: Path, restored: Path, aside: Path) -> None:
    if state.exists():
        with_lock = (state / "online").is_dir()
        lock = WriterLock(state / "online") if with_lock else None
        try:
            state.rename(aside)
        finally:
            if lock is not None:
                lock.release()
    restored.rename(state)


def teardown(config: Config, keep: tuple[str, ...] = ()) -> dict[str, int]:
    """Removes all that headrace keeps of a project; definitions, settings and the files of sources stay.

    Args:
        config: the project's settings.
        keep: folders of `.headrace` that stay, for example "datasets".

    Returns:
        Folder or file of `.headrace` -> the bytes that were removed.

    Raises:
        StoreError: `store_locked`, a process is writing.
    """
    state = config.state
    if not state.is_dir():
        return {}
    lock = WriterLock(state / "online") if (state / "online").is_dir() else None
    removed = {}
    try:
        for path in sorted(state.iterdir()):
            if path.name in keep:
                continue
            if path.is_dir():
                removed[path.name] = sum(file.stat().st_size for file in _files(path))
                shutil.rmtree(path)
            else:
                removed[path.name] = path.stat().st_size
                path.unlink()
    finally:
        if lock is not None:
            lock.release()
    if not any(state.iterdir()):
        state.rmdir()
    return removed
