"""The connections to a server belong to one process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from everloop.app.remote import HttpPerformer


class Recorder(ThreadingHTTPServer):
    """Answers every question for bytes and keeps the ports that asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ports: list[int] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Recorder)
        self.server.ports.append(self.client_address[1])
        body = b'{"digest": "", "size_bytes": 7}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as recorder:
        thread = threading.Thread(target=recorder.serve_forever, daemon=True)
        thread.start()
        yield recorder
        recorder.shutdown()


def test_a_forked_child_opens_a_connection_of_its_own(server: Recorder) -> None:
    performer = HttpPerformer(f"http://127.0.0.1:{server.server_address[1]}", "token", "demo")
    sizes = [performer.blobs.size("x"), performer.blobs.size("x")]  # type: ignore[arg-type]

    child = os.fork()
    if child == 0:
        os._exit(performer.blobs.size("x") or 0)  # type: ignore[arg-type]
    assert 7 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sizes.append(performer.blobs.size("x"))  # type: ignore[arg-type]

    assert [7, 7, 7] == sizes
    first, second, of_child, last = server.ports
    assert first == second == last != of_child
    performer.close()
