"""A file of frames: whatever becomes of its writer or of the power, what counts is whole."""

import fcntl
import os
import struct
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import IntegrityError
from everloop.serve.log.file import (
    HEAD_BYTES,
    HEADER_BYTES,
    FrameFile,
    counted_bytes,
    read_frame,
    read_frames,
    remove_drafts,
)

MANY = 1 << 20


def payloads(path: Path, offset: int = 0, limit_bytes: int = MANY) -> list[bytes]:
    found = read_frames(path, offset, limit_bytes=limit_bytes)
    return [frame.payload for frame in found.frames]


def written(path: Path, *frames: bytes, room: int = 4_000) -> FrameFile:
    file = FrameFile(path, room)
    for frame in frames:
        assert file.append(1, frame)
    return file


@given(frames=st.lists(st.binary(max_size=300), max_size=12), limit=st.integers(1, 700))
def test_frames_are_read_as_they_were_written_in_pieces_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, frames: list[bytes], limit: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "file"
    found: list[bytes] = []
    offset = 0

    with closing(written(path, *frames, room=8_000)):
        while pieces := read_frames(path, offset, limit_bytes=limit).frames:
            found += [frame.payload for frame in pieces]
            offset = pieces[-1].end

        assert frames == found
        assert offset == counted_bytes(path)


def test_frames_written_together_stand_together_or_not_at_all(tmp_path: Path) -> None:
    two = 2 * (HEAD_BYTES + 100)
    with closing(FrameFile(tmp_path / "file", two + 50)) as file:
        assert not file.append(1, bytes(100), bytes(200))
        assert not file.append(1, bytes(100), b"x" * 100, reserved=51)
        assert [] == payloads(tmp_path / "file")

        assert file.append(1, bytes(100), b"x" * 100, reserved=50)

        assert [bytes(100), b"x" * 100] == payloads(tmp_path / "file")


def test_a_power_cut_at_any_byte_leaves_the_frames_before_it(tmp_path: Path) -> None:
    frames = [b"first", b"second frame", b"", b"the last one"]
    path = tmp_path / "whole"
    file = written(path, *frames)
    os.close(file._descriptor)  # the process has gone, and nothing was synced
    data = path.read_bytes()
    ends = [frame.end for frame in read_frames(path, limit_bytes=MANY).frames]

    for cut in range(ends[-1] + 1):
        torn = tmp_path / "torn"
        torn.write_bytes(data[: HEADER_BYTES + cut] + bytes(len(data) - HEADER_BYTES - cut))
        found = read_frames(torn, limit_bytes=MANY)

        whole = [frame for frame, end in zip(frames, ends, strict=True) if end <= cut]
        # Zeros after the cut may happen to be what stood there.
        assert whole == [frame.payload for frame in found.frames][: len(whole)]
        assert len(found.frames) - len(whole) <= 1
        assert found.is_final
        assert found.lost_bytes == ends[-1] - (found.frames[-1].end if found.frames else 0)


def test_a_byte_that_changes_after_it_was_synced_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = written(path, b"first", b"second")
    file.close()
    data = bytearray(path.read_bytes())
    second = HEAD_BYTES + len(b"first")

    for place in range(HEADER_BYTES, len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x40
        path.write_bytes(changed)
        offset = 0 if place < HEADER_BYTES + second else second
        with pytest.raises(IntegrityError):
            payloads(path, offset, limit_bytes=second)


def test_frames_of_another_kind_do_not_pass_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    written(path, b"first").close()
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + HEAD_BYTES - 1] = 2
    path.write_bytes(data)

    with pytest.raises(IntegrityError):
        payloads(path)


def test_a_reader_sees_what_is_there_while_the_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with closing(written(path, b"first")) as file:
        found = read_frames(path, limit_bytes=MANY)
        assert not found.is_final
        file.append(1, b"second")

        assert [b"second"] == payloads(path, found.frames[-1].end)


def test_a_file_is_final_when_its_writer_closed_it_or_died(tmp_path: Path) -> None:
    closed, dead = tmp_path / "closed", tmp_path / "dead"
    written(closed, b"first").close()
    os.close(written(dead, b"first")._descriptor)

    for path in (closed, dead):
        found = read_frames(path, limit_bytes=MANY)
        assert found.is_final
        assert [b"first"] == [frame.payload for frame in found.frames]
    assert HEADER_BYTES + HEAD_BYTES + len(b"first") == closed.stat().st_size


def test_a_frame_that_has_no_room_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with closing(FrameFile(path, 40)) as file:
        assert file.append(1, b"0123456789")
        assert not file.append(1, b"0123456789" * 3)

        assert [b"0123456789"] == payloads(path)


def test_a_frame_larger_than_a_read_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    large = b"x" * 100_000
    with closing(written(path, large, b"small", room=200_000)):
        assert [large] == payloads(path, limit_bytes=10)
        assert large == read_frame(path, 0).payload


def test_a_file_that_is_none_of_ours_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"something else" * 1_000)

    assert 0 == counted_bytes(path)
    with pytest.raises(IntegrityError):
        payloads(path)


def test_a_header_that_counts_further_than_the_file_reaches_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "file"
    written(path, b"first").close()
    with path.open("r+b") as file:
        file.seek(16)
        file.write(struct.pack("<Q", 1 << 62))

    found = read_frames(path, limit_bytes=MANY)

    assert [b"first"] == [frame.payload for frame in found.frames]


def test_nothing_that_was_written_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = """
        import sys
        from pathlib import Path
        from everloop.serve.log.file import FrameFile, HEAD_BYTES, counted_bytes

        file = FrameFile(Path(sys.argv[1]), 50_000_000)
        for number in range(1_000_000):
            file.append(1, b"%d" % number)
            if number % 100 == 0:
                print(number, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()

    found = read_frames(path, limit_bytes=50_000_000)
    assert found.is_whole
    assert found.is_final
    assert 0 == found.lost_bytes
    numbers = [int(frame.payload) for frame in found.frames]
    assert list(range(len(numbers))) == numbers
    assert told[-1] < len(numbers)


def test_a_draft_is_never_taken_for_a_file(tmp_path: Path) -> None:
    with closing(FrameFile(tmp_path / "w0-1.log", 100)):
        assert ["w0-1.log"] == [path.name for path in tmp_path.iterdir()]
        with pytest.raises(FileExistsError):
            FrameFile(tmp_path / "w0-1.log", 100)
        assert ["w0-1.log"] == [path.name for path in tmp_path.iterdir()]
        descriptor = os.open(tmp_path / "w0-1.log", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(descriptor)


def test_the_name_of_a_new_file_reaches_the_disk_with_its_first_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with closing(written(tmp_path / "w0-1.log", b"one")) as file:
        file.sync()
        file.append(1, b"two")
        file.sync()

        assert [tmp_path] == synced


def test_drafts_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    left, held, young = (tmp_path / f".p{at}-1.log" for at in range(3))
    for draft in (left, held, young):
        draft.write_bytes(b"")
    for draft in (left, held):
        os.utime(draft, (1, 1))
    descriptor = os.open(held, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    remove_drafts(tmp_path)

    os.close(descriptor)
    assert {held, young} == set(tmp_path.iterdir())


WRITE = """
import sys
from pathlib import Path
from everloop.serve.log.file import FrameFile
file = FrameFile(Path(sys.argv[1]), 16 * 1024 * 1024)
while file.append(1, b"x" * 24):
    pass
file.close()
"""


def test_no_reader_ever_sees_half_of_a_count(tmp_path: Path) -> None:
    path = tmp_path / "w0-00000000000001.log"
    writer = subprocess.Popen([sys.executable, "-c", WRITE, str(path)])
    while not path.exists() and writer.poll() is None:
        pass
    seen = [0]
    while writer.poll() is None:
        seen.append(counted_bytes(path))

    assert 0 == writer.returncode
    assert seen == sorted(seen)
    assert {0} == {count % (HEAD_BYTES + 24) for count in seen}
