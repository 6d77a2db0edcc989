from __future__ import annotations

import asyncio
import os
from pathlib import Path

from everloop.core.clock import SystemClock
from everloop.serve.hosting import Host
from everloop.serve.service import Service
from tests.unit.serve.served import Served, make_folder, version_id


def served(folder: Path) -> Served:
    folder.mkdir()
    made = make_folder(folder)
    made.route(made.seal(1))
    return made


def test_a_deployment_switches_while_another_one_still_loads_its_model(tmp_path: Path) -> None:
    slow, quick = served(tmp_path / "slow"), served(tmp_path / "quick")
    host = Host([tmp_path], SystemClock(), key=None, log=None)
    host.load()
    service = Service(SystemClock())
    host.open(service, "w0")
    endless = slow.seal(2)
    pipe = slow.folder / endless.bundle / "model.txt"
    pipe.unlink()
    os.mkfifo(pipe)

    async def switch() -> str:
        watch = asyncio.ensure_future(service.keep_routes())
        slow.route(endless)
        writing = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)  # as soon as it is read
        try:
            quick.route(quick.seal(2))
            async with asyncio.timeout(5.0):
                while True:
                    champion = service.find("quick").lineup.champion
                    assert champion is not None
                    if champion.loaded.bundle.version_id == version_id(2):
                        return champion.loaded.bundle.version_id
                    await asyncio.sleep(0.01)
        finally:
            os.close(writing)
            watch.cancel()

    assert version_id(2) == asyncio.run(switch())
    for endpoint in service.endpoints.values():
        endpoint.log.close()
    assert service.flusher is not None
    service.flusher.close()
