"""The small client tells what the server said, also when it hung up on the way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from everloop.core.errors import LimitExceeded, Unavailable
from everloop.serve.client import PredictClient

REFUSAL = b'{"error":{"code":"request.too_large","message":"Too large.","hint":"Send less."}}'
ANSWER = (
    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    % len(REFUSAL)
) + REFUSAL
ROWS = [{"text": "x" * 1_000}] * 20_000


@contextmanager
def served(answer: Callable[[socket.socket], None]) -> Iterator[PredictClient]:
    """Serve every connection by one function, which may leave the body unread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    answer(peer)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            with PredictClient(f"http://127.0.0.1:{listener.getsockname()[1]}", "token") as client:
                yield client
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def refuse(peer: socket.socket) -> None:
    """Answer after the first bytes, and hang up without reading the rest."""
    peer.recv(1_000)
    peer.sendall(ANSWER)


def test_a_server_that_cuts_a_body_off_is_heard() -> None:
    with served(refuse) as client, pytest.raises(LimitExceeded) as refused:
        client.predict(ROWS)

    assert ("request.too_large", "Send less.") == (refused.value.code, refused.value.hint)


def test_a_server_that_hangs_up_without_a_word_is_away() -> None:
    with served(lambda peer: None) as client, pytest.raises(Unavailable):
        client.predict(ROWS)
