from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from everloop.core.clock import SystemClock
from everloop.core.wire import Target
from everloop.serve.hosting import Host
from everloop.serve.service import Service
from tests.unit.serve.served import Served, make_folder, version_id


def served(folder: Path) -> Served:
    folder.mkdir()
    made = make_folder(folder)
    made.route(made.seal(1))
    return made


def sealed_without_end(made: Served, number: int) -> tuple[Target, Path]:
    """A bundle whose reading does not end, and the pipe that is in the place of its model."""
    target = made.seal(number)
    pipe = made.folder / target.bundle / "model.txt"
    pipe.unlink()
    os.mkfifo(pipe)
    return target, pipe


@contextmanager
def serving(home: Path) -> Iterator[Service]:
    host = Host([home], SystemClock(), key=None, log=None)
    host.load()
    service = Service(SystemClock())
    host.open(service, "w0")
    yield service
    for endpoint in service.endpoints.values():
        endpoint.log.close()
    assert service.flusher is not None
    service.flusher.close()


def champion_of(service: Service, name: str) -> str:
    champion = service.find(name).lineup.champion
    assert champion is not None
    return champion.loaded.bundle.version_id


async def switched(
    service: Service,
    name: str,
    begin: Callable[[], object],
    pipe: Path,
    change: Callable[[], object],
) -> str:
    """The champion of a deployment once it changed, while a model is read without end."""
    before = champion_of(service, name)
    watch = asyncio.ensure_future(service.keep_routes())
    begin()
    writing = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)  # as soon as it is read
    try:
        change()
        async with asyncio.timeout(5.0):
            while champion_of(service, name) == before:
                await asyncio.sleep(0.01)
        return champion_of(service, name)
    finally:
        os.close(writing)
        watch.cancel()


def test_a_deployment_switches_while_another_one_still_loads_its_model(tmp_path: Path) -> None:
    slow, quick = served(tmp_path / "slow"), served(tmp_path / "quick")
    endless, pipe = sealed_without_end(slow, 2)
    second = quick.seal(2)

    with serving(tmp_path) as service:
        change = partial(quick.route, second)
        found = asyncio.run(switched(service, "quick", partial(slow.route, endless), pipe, change))

    assert version_id(2) == found


def test_a_rollback_does_not_wait_for_the_model_of_the_canary(tmp_path: Path) -> None:
    made = served(tmp_path / "bikes")
    first, second = made.seal(1), made.seal(2)
    made.route(second, previous=first)
    endless, pipe = sealed_without_end(made, 3)

    with serving(tmp_path) as service:
        found = asyncio.run(
            switched(
                service,
                "bikes",
                lambda: made.route(second, canary=endless, previous=first),
                pipe,
                lambda: made.route(first, previous=second),
            )
        )

    assert version_id(1) == found
