"""Large files go past the event loop and past the spool, and nothing of that shows from outside."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from everloop.app.client import Client, connect, connect_home
from everloop.app.config import parse_config
from everloop.app.home import Home
from everloop.app.server import ServerOptions, allowed_hosts, answering, build_app, listening
from everloop.app.starting import start_project
from everloop.app.tracking import start_run
from everloop.app.transfer import send_file
from everloop.core.digest import content_digest
from everloop.core.errors import EverloopError, IntegrityError, InvalidInput, Unavailable
from everloop.http.lending import BUFFER_BYTES, LOANS
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.track.files import FindFile
from everloop.track.limits import STRAIGHT_FILE_BYTES
from everloop.track.model import ArtifactEntry
from tests.story.project import wait_for

LARGE = 3 * BUFFER_BYTES + 12_345
BLOBS = "/api/v1/projects/demo/blobs"


@dataclass(frozen=True)
class Server:
    """A server with a token, and the folder in which its bytes lie."""

    near: Client
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def blobs(self) -> Path:
        assert self.near.home is not None
        return self.near.home.path / "blobs" / "blake3"

    def head(self, method: str, path: str, *more: str) -> bytes:
        """Return the head of a request."""
        lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{self.port}"]
        lines += [f"authorization: Bearer {self.token}", *more, "", ""]
        return "\r\n".join(lines).encode()

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def drafts(self) -> list[Path]:
        return list(self.blobs.glob(".incoming-*"))

    def answers(self) -> bool:
        return httpx.get(f"{self.url}/healthz").status_code == 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("large")
    start_project(folder, "demo")
    config, options = parse_config("project: demo"), ServerOptions(port=0)
    with connect_home(Home(folder / ".everloop")) as near:
        assert near.kernel is not None
        app = build_app(near.kernel, hosts=allowed_hosts(config, options), project="demo")
        made = near.perform("token.create", CreateToken(name="far"), NewToken)
        with listening(config, options) as listener, answering(app, listener):
            yield Server(near, listener.getsockname()[1], made.secret)


@pytest.fixture
def far(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("EVERLOOP_SPOOL", str(tmp_path / "spool"))
    with connect(server.url, project="demo", token=server.token) as client:
        yield client


def read_answer(line: socket.socket) -> tuple[int, bytes]:
    """Read one answer that says its length; leave the connection as it is."""
    reader = line.makefile("rb")
    status = int(reader.readline().split()[1])
    length = 0
    while (header := reader.readline()) not in {b"\r\n", b""}:
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, reader.read(length)


def test_a_connection_goes_on_after_a_large_body_in_odd_pieces(server: Server) -> None:
    data = os.urandom(LARGE)
    path = f"{BLOBS}/{content_digest(data)}"

    with server.open() as line:
        line.sendall(server.head("PUT", path, f"content-length: {len(data)}") + data[:7])
        for at in range(7, len(data), 100_001):
            line.sendall(data[at : at + 100_001])
        put = read_answer(line)[0]
        line.sendall(server.head("GET", path))
        got = read_answer(line)
        line.sendall(server.head("GET", "/healthz"))
        after = read_answer(line)[0]

    assert (201, 200, 200) == (put, got[0], after)
    assert data == got[1]


def test_a_large_body_waits_for_leave_when_its_client_asks(server: Server) -> None:
    data = os.urandom(LARGE)
    more = (f"content-length: {len(data)}", "expect: 100-continue")

    with server.open() as line:
        line.sendall(server.head("POST", f"{BLOBS}:stream", *more))
        leave = line.recv(1_000)
        line.sendall(data)
        status, body = read_answer(line)

    assert leave.startswith(b"HTTP/1.1 100 ")
    assert 201 == status
    assert content_digest(data).encode() in body


def test_a_large_body_in_chunks_arrives_as_well(server: Server) -> None:
    data = os.urandom(LARGE)

    answer = httpx.post(
        f"{server.url}{BLOBS}:stream",
        content=iter([data[:1_000_000], data[1_000_000:]]),
        headers={"authorization": f"Bearer {server.token}"},
    )

    assert {"digest": content_digest(data)} == answer.json()


def test_a_body_that_is_cut_leaves_nothing(server: Server) -> None:
    data = os.urandom(LARGE)
    before = set(server.near.blobs.digests())

    for whole in (data[: 2 * BUFFER_BYTES], data[:3]):
        with server.open() as line:
            head = server.head("POST", f"{BLOBS}:stream", f"content-length: {len(data)}")
            line.sendall(head + whole)

    wait_for(lambda: not server.drafts(), "nothing half-written is left")
    assert before == set(server.near.blobs.digests())
    assert server.answers()


def test_a_large_body_under_a_wrong_digest_is_refused_in_words(server: Server) -> None:
    data, other = os.urandom(LARGE), content_digest(b"another")

    with server.open() as line:
        head = server.head("PUT", f"{BLOBS}/{other}", f"content-length: {len(data)}")
        line.sendall(head + data)
        status, body = read_answer(line)
        line.sendall(server.head("GET", "/healthz"))
        after = read_answer(line)[0]

    assert (400, 200) == (status, after)
    assert b"blob.wrong_digest" in body
    assert server.near.blobs.size(content_digest(data)) is None
    assert not server.drafts()


def test_clients_that_stall_hold_nobody_up(server: Server, far: Client, tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(os.urandom(LARGE))
    lines = [server.open() for _ in range(LOANS + 4)]
    try:
        for line in lines:
            head = server.head("POST", f"{BLOBS}:stream", f"content-length: {LARGE}")
            line.sendall(head + b"x" * 100_000)

        digest = far.blobs.put_file(file)

        assert file.read_bytes() == far.blobs.get(digest)
    finally:
        for line in lines:
            line.close()
    wait_for(lambda: not server.drafts(), "nothing half-written is left")


def test_a_client_that_leaves_during_a_download_harms_nobody(server: Server) -> None:
    data = os.urandom(16 * BUFFER_BYTES)
    digest = server.near.blobs.put(data)

    with server.open() as line:
        line.sendall(server.head("GET", f"{BLOBS}/{digest}"))
        line.recv(1_000)

    assert server.answers()


def test_bytes_that_rotted_are_never_taken_for_what_was_stored(server: Server, far: Client) -> None:
    data = os.urandom(LARGE)
    digest = server.near.blobs.put(data)
    name = digest.partition(":")[2]
    place = server.blobs / name[:2] / name[2:]
    with place.open("r+b") as file:
        file.seek(LARGE - 10)
        file.write(b"rot")

    with pytest.raises((IntegrityError, Unavailable)):
        far.blobs.get(digest)

    assert server.answers()
    place.unlink()


def test_a_large_file_goes_to_a_near_server_without_a_copy(
    server: Server, far: Client, tmp_path: Path
) -> None:
    data = os.urandom(STRAIGHT_FILE_BYTES)
    file = tmp_path / "model.bin"
    file.write_bytes(data)
    run = start_run("files", client=far)

    run.log_artifact(file)
    file.write_bytes(b"another")
    copies = list((tmp_path / "spool").rglob("*.files/*"))
    found = server.near.perform("run.file", FindFile(run=run.id, path="model.bin"), ArtifactEntry)

    assert [] == copies
    assert (content_digest(data), len(data)) == (found.digest, found.size_bytes)
    assert run.finish()


def test_a_large_file_waits_in_the_spool_while_the_server_is_away(
    server: Server, far: Client, tmp_path: Path
) -> None:
    data = os.urandom(STRAIGHT_FILE_BYTES)
    file = tmp_path / "model.bin"
    file.write_bytes(data)
    run = start_run("files", client=far)
    line = far._performer._line.http  # type: ignore[attr-defined]
    line.base_url = "http://127.0.0.1:1"

    run.log_artifact(file)
    file.unlink()
    copies = [path.stat().st_size for path in (tmp_path / "spool").rglob("*.files/*")]
    line.base_url = server.url

    assert [len(data)] == copies
    assert run.finish()
    found = server.near.perform("run.file", FindFile(run=run.id, path="model.bin"), ArtifactEntry)
    assert data == server.near.blobs.get(found.digest)


@contextmanager
def stub(file: Path, *, cut_to: int | None, pause_s: float) -> Iterator[str]:
    """Run a server that cuts the file while it is sent, or that reads ever so slowly."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        line, _ = listener.accept()
        with line:
            line.recv(1_000)
            if cut_to is not None:
                os.truncate(file, cut_to)
            while not done.wait(pause_s) and line.recv(65_536):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    finally:
        done.set()
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    ("cut_to", "pause_s", "code"), [(1_000, 0.0, "file.changed"), (None, 0.05, "blob.too_slow")]
)
def test_a_file_that_shrinks_or_a_server_that_dawdles_is_given_up(
    tmp_path: Path, cut_to: int | None, pause_s: float, code: str
) -> None:
    file = tmp_path / "file.bin"
    with file.open("wb") as made:
        made.truncate(64 * BUFFER_BYTES)

    with (
        stub(file, cut_to=cut_to, pause_s=pause_s) as address,
        pytest.raises((InvalidInput, Unavailable)) as refused,
    ):
        send_file(address, file, {}, least_rate=50e6)

    assert isinstance(refused.value, EverloopError)
    assert code == refused.value.code
