from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from everloop.serve.notify import Notifier

WAIT_S = 5


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.settimeout(WAIT_S)
        way.bind(str(tmp_path / "notify"))
        yield way


def heard(manager: socket.socket) -> str:
    return manager.recv(100).decode()


def test_the_manager_hears_when_the_server_is_ready_lives_and_ends(
    manager: socket.socket,
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "20000000"})

    notifier.ready()
    notifier.beat()
    notifier.ending()

    assert ["READY=1", "WATCHDOG=1", "STOPPING=1"] == [heard(manager) for _ in range(3)]
    assert 10.0 == notifier.beat_s


def test_a_name_without_a_file_begins_with_an_at_sign(tmp_path: Path) -> None:
    name = f"everloop-{tmp_path.name}-{tmp_path.parent.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.settimeout(WAIT_S)
        way.bind(f"\0{name}")

        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()

        assert "READY=1" == heard(way)


def test_signs_of_life_come_by_themselves(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000"})

    async def serve() -> list[str]:
        keeping = asyncio.ensure_future(notifier.keep())
        found = [await asyncio.to_thread(heard, manager) for _ in range(3)]
        keeping.cancel()
        return found

    assert ["WATCHDOG=1"] * 3 == asyncio.run(serve())


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "x" * 300, "WATCHDOG_USEC": "soon"},
    ],
)
def test_a_manager_that_is_not_there_or_asks_another_disturbs_nobody(
    environ: dict[str, str],
) -> None:
    notifier = Notifier(environ, pid=2)

    notifier.ready()
    notifier.beat()
    notifier.ending()

    assert notifier.beat_s is None
