"""Files of pushes: what counts, what a start decides, damage, copies, and readers beside the writer."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import HeadraceError
from headrace.history import HistoryFile, ViewHistory, history_files
from headrace.push_files import PushWriter, copy_pushes, counted_pushes, read_head, read_pushes, settle_pushes

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


def rows_of(number: int) -> pa.RecordBatch:
    count = number % 5 + 1
    return pa.record_batch({"id": [number] * count, "text": ["x" * number] * count}, SCHEMA)


def made(folder: Path, pushes: int) -> PushWriter:
    """A file with pushes 0, 1, .. at sequences 0, 10, .."""
    writer = PushWriter.create(folder / f"{0:020}.pushes", SCHEMA, 0, sync=False)
    for number in range(pushes):
        writer.append(rows_of(number), number * 10, number, 100 + number)
        writer.count()
    return writer


def numbers(path: Path) -> list[int]:
    """The pushes that count, each seen to be whole."""
    found = whole(path)
    assert [push.number for push in counted_pushes(path)] == found
    return found


def whole(path: Path) -> list[int]:
    found = []
    for push, batch in read_pushes(path):
        assert batch.equals(rows_of(push.number))
        assert (push.sequence, push.pushed_us, push.rows) == (push.number * 10, 100 + push.number, batch.num_rows)
        found.append(push.number)
    return found


def test_a_push_counts_when_it_is_said_to(tmp_path: Path) -> None:
    writer = made(tmp_path, 2)
    writer.append(rows_of(2), 20, 2, 102)
    assert numbers(writer.path) == [0, 1]
    writer.count()
    assert numbers(writer.path) == [0, 1, 2]
    writer.append(rows_of(9), 30, 3, 103)
    writer.drop()
    assert numbers(writer.path) == [0, 1, 2]
    assert writer.path.stat().st_size == read_head(writer.path).end
    writer.append(rows_of(3), 30, 3, 103)
    writer.count()
    writer.close()
    assert numbers(writer.path) == [0, 1, 2, 3]
    assert HistoryFile.of(writer.path) == HistoryFile(0, 3, writer.path)


@given(counted=st.integers(0, 4), more=st.integers(0, 4), in_log=st.integers(0, 9), cut=st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_a_start_goes_by_the_log(
    tmp_path_factory: pytest.TempPathFactory, counted: int, more: int, in_log: int, cut: int
) -> None:
    """However the process ended: what counted stays, and of the rest what the log has and is whole."""
    writer = made(tmp_path_factory.mktemp("pushes"), counted)
    ends = [read_head(writer.path).end]
    at = ends[0]
    with writer.path.open("r+b") as file:
        for number in range(counted, counted + more):
            one = made(tmp_path_factory.mktemp("one"), 0)
            one.append(rows_of(number), number * 10, number, 100 + number)
            record = one.path.read_bytes()[read_head(one.path).end :]
            one.close()
            file.seek(at)
            file.write(record)
            at += len(record)
            ends.append(at)
    writer.close()
    size = max(at - cut, ends[0])
    os.truncate(writer.path, size)
    assert settle_pushes(writer.path, in_log * 10, sync=False) is None
    whole = sum(end <= size for end in ends) - 1
    kept = counted + min(max(in_log - counted, 0), whole)
    assert numbers(writer.path) == list(range(kept))
    assert writer.path.stat().st_size == read_head(writer.path).end
    writer = PushWriter.open(writer.path, sync=False)
    writer.append(rows_of(kept), kept * 10, kept, 100 + kept)
    writer.count()
    writer.close()
    assert numbers(writer.path) == list(range(kept + 1))


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    writer = made(tmp_path_factory.mktemp("pushes"), 3)
    writer.close()
    data = bytearray(writer.path.read_bytes())
    at %= len(data)
    data[at] ^= 1 << bit
    writer.path.write_bytes(data)
    with pytest.raises(HeadraceError, match="cannot be read"):
        list(read_pushes(writer.path))


def test_a_copy_has_the_earlier_pushes_and_those_of_the_log(tmp_path: Path) -> None:
    writer = made(tmp_path, 4)
    writer.append(rows_of(4), 40, 4, 104)
    place = tmp_path / "copies"
    place.mkdir()
    # before a push, before a row -> how many
    for at, (before, in_log, copied) in enumerate([(0, 0, 0), (2, 0, 2), (0, 30, 3), (2, 40, 4), (0, 50, 5)]):
        copy = place / f"{at:020}.pushes"
        copy_pushes(writer.path, copy, before, in_log)
        assert [push.sequence for push in counted_pushes(copy)] == [number * 10 for number in range(copied)]
        assert read_head(copy).next_number == copied
    assert numbers(writer.path) == [0, 1, 2, 3]
    writer.close()


def test_readers_beside_the_writer_see_whole_pushes(tmp_path: Path) -> None:
    writer = made(tmp_path, 1)
    done = threading.Event()
    faults: list[BaseException] = []

    def read() -> None:
        last = 0
        try:
            while not done.is_set():
                found = whole(writer.path)
                assert found == list(range(len(found)))
                assert len(found) >= last
                last = len(found)
        except BaseException as error:
            faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 120):
        writer.append(rows_of(number + 7), number * 10, number, 1)
        writer.drop()
        writer.append(rows_of(number), number * 10, number, 100 + number)
        writer.count()
    done.set()
    for reader in readers:
        reader.join()
    writer.close()
    assert not faults
    assert len(numbers(writer.path)) == 120


def test_another_schema_begins_another_file(tmp_path: Path) -> None:
    history = ViewHistory(tmp_path / "view", sync=True)
    for sequence, column in enumerate(["a", "a", "b", "b", "a"]):
        with history.kept(pa.table({column: [sequence]}), sequence, 0):
            pass
    history.close()
    assert [(file.first, file.last) for file in history_files(history.folder)] == [(0, 1), (2, 3), (4, 4)]


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = made(tmp_path, 2)
    before = writer.path.read_bytes()
    write = os.pwritev

    def part(descriptor: int, parts: list[bytes], at: int) -> int:
        write(descriptor, [b"".join(bytes(one) for one in parts)[:50]], at)
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", part)
        with pytest.raises(OSError, match="no room"):
            writer.append(rows_of(2), 20, 2, 102)
    assert writer.path.read_bytes() == before
    writer.append(rows_of(2), 20, 2, 102)
    writer.count()
    writer.close()
    assert numbers(writer.path) == [0, 1, 2]


def test_a_push_that_was_dropped_never_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the disk does not cut the file and the log goes on with another view."""
    writer = made(tmp_path, 1)
    writer.append(rows_of(1), 10, 1, 101)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", fail)
        writer.drop()
        with pytest.raises(OSError, match="no"):
            writer.close()
    assert settle_pushes(writer.path, 1000, sync=False) is None
    assert numbers(writer.path) == [0]
    assert writer.path.stat().st_size == read_head(writer.path).end


def test_a_head_that_cannot_be_written_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = made(tmp_path, 1)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        writer.append(rows_of(1), 10, 1, 101)
        writer.count()
        assert numbers(writer.path) == [0]
    writer.close()
    assert numbers(writer.path) == [0, 1]


def test_damage_that_no_power_cut_does_is_left_for_readers(tmp_path: Path) -> None:
    writer = made(tmp_path, 3)
    writer.close()
    pushes = counted_pushes(writer.path)
    whole_file = writer.path.read_bytes()
    # where a byte is changed, and whether the writes waited for the disk
    for at, sync in ((45, False), (pushes[1].end - 1, False), (pushes[2].end - 1, True)):
        data = bytearray(whole_file)
        data[at] ^= 1
        writer.path.write_bytes(data)
        if at == 45:
            with pytest.raises(HeadraceError, match="schema"):
                settle_pushes(writer.path, 1000, sync=sync)
        else:
            assert settle_pushes(writer.path, 1000, sync=sync) is None
        assert writer.path.read_bytes() == data
        with pytest.raises(HeadraceError, match="cannot be read"):
            list(read_pushes(writer.path))
    writer.path.write_bytes(whole_file[: pushes[2].at + 60] + bytes(len(whole_file) - pushes[2].at - 60))
    assert settle_pushes(writer.path, 1000, sync=False) == writer.path.with_suffix(".torn")
    assert numbers(writer.path) == [0, 1]
