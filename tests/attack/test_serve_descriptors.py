"""More connections than the system lets a process open: the others are told, the rest goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.parts.raw_http import RawLink, request
from tests.unit.serve.served import (
    ROW,
    TOKEN,
    Served,
    make_folder,
    shifted_model,
    version_id,
    wait_until,
)

ALLOWED = 160
BODY = json.dumps({"inputs": [ROW]}).encode()
GOOD = request(
    body=BODY, headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
)


def start(served: Served) -> tuple[str, int]:
    """Start the server with few descriptors; return where it listens."""
    command = [sys.executable, "-m", "everloop.serve.main", "--home", str(served.folder)]
    served.process = subprocess.Popen(
        ["sh", "-c", f'ulimit -n {ALLOWED}; exec "$@"', "sh", *command],
        stderr=subprocess.DEVNULL,
    )
    wait_until((served.folder / "server.json").exists)
    url = urlsplit(json.loads((served.folder / "server.json").read_bytes())["url"])
    return str(url.hostname), int(url.port or 0)


def test_connections_beyond_what_the_system_allows_keep_nothing_from_its_work(
    tmp_path: Path,
) -> None:
    served = make_folder(tmp_path / "bikes")
    served.route(served.seal(1))
    following = served.seal(2, shifted_model(5.0))
    at = start(served)
    links: list[RawLink] = []
    try:
        for _ in range(2 * ALLOWED):
            links.append(RawLink(*at))
            links[-1].send(GOOD)
        answers = [link.read() for link in links]

        # A model is loaded from its files while all of these connections stay open.
        applied = served.await_epoch(served.route(following))
        links[0].send(GOOD)
        later = links[0].read()
    finally:
        for link in links:
            link.close()
        served.close()

    statuses = {answer.status for answer in answers if answer is not None}
    assert {200, 429} == statuses
    assert () == applied.refused
    assert later is not None
    assert version_id(2) == json.loads(later.body)["predictions"][0]["version"]
