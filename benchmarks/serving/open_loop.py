"""Ask a server at a given rate, whatever its answers do; prints what it found as one JSON line.

A closed loop waits with its next request for the answer before, so a server that stalls is asked
less while it stalls, and the stall counts once. Here every request has its moment beforehand
(a Poisson process, or evenly spaced), and its latency counts from that moment, also when all
connections are busy and it must wait at the client. One busy loop, no timers: an event loop's
timers of a millisecond would be most of what is measured.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np

CONNECTIONS = 64
LATE_S = 10.0


def main() -> None:
    """Read what is asked from the first argument."""
    given = json.loads(sys.argv[1])
    print(json.dumps(run(**given)))


def run(
    *,
    port: int,
    path: str,
    headers: dict[str, str],
    bodies: str,
    rate: float,
    seconds: float,
    evenly: bool,
) -> dict[str, float]:
    """Ask and return rates, percentiles and failures."""
    requests = [
        _request(path, headers, file.read_bytes()) for file in sorted(Path(bodies).iterdir())
    ]
    random = np.random.default_rng(1)
    count = max(1, int(rate * seconds))
    gaps = np.full(count, 1 / rate) if evenly else random.exponential(1 / rate, count)
    moments = np.cumsum(gaps).tolist()
    gc.disable()
    loop = _Loop(port)
    spent, failed = loop.ask(requests, moments)
    took = moments[-1]
    ordered = np.sort(np.asarray(spent)) * 1e6
    return {
        "answers": len(spent),
        "rate": len(spent) / took,
        "failed": failed,
        "late": loop.late,
        "p50_us": float(np.quantile(ordered, 0.5)),
        "p99_us": float(np.quantile(ordered, 0.99)),
        "p999_us": float(np.quantile(ordered, 0.999)),
        "max_us": float(ordered[-1]),
    }


class _Loop:
    """Connections of one thread that never sleeps."""

    def __init__(self, port: int) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._idle: list[int] = []
        self.late = 0
        for _ in range(CONNECTIONS):
            link = socket.create_connection(("127.0.0.1", port))
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setblocking(False)
            self._sockets[link.fileno()] = link
            self._poll.register(link.fileno(), select.EPOLLIN)
            self._idle.append(link.fileno())

    def ask(self, requests: list[bytes], moments: list[float]) -> tuple[list[float], int]:
        """Send each request at its moment; return the latencies and how many failed."""
        spent: list[float] = []
        failed = 0
        waiting: deque[float] = deque()
        asked: dict[int, float] = {}
        parts: dict[int, bytes] = {}
        turn, sent, now = 0, 0, time.perf_counter
        begin = now() + 0.05
        end = begin + moments[-1] + LATE_S
        while len(spent) + failed < len(moments) and (at := now()) < end:
            while turn < len(moments) and begin + moments[turn] <= at:
                waiting.append(begin + moments[turn])
                turn += 1
            while waiting and self._idle:
                number = self._idle.pop()
                asked[number] = waiting.popleft()
                self._sockets[number].send(requests[sent % len(requests)])
                sent += 1
            self.late = max(self.late, len(waiting))
            for number, _ in self._poll.poll(0):
                data = parts.pop(number, b"") + self._sockets[number].recv(262_144)
                if not _is_whole(data):
                    parts[number] = data
                    continue
                if data[9:12] == b"200":
                    spent.append(now() - asked.pop(number))
                else:
                    failed += 1
                self._idle.append(number)
        return spent, len(moments) - len(spent)


def _is_whole(data: bytes) -> bool:
    head, gap, body = data.partition(b"\r\n\r\n")
    if not gap:
        if not data:
            raise RuntimeError("the server closed a connection")
        return False
    lower = head.lower()
    place = lower.find(b"content-length:")
    if place < 0:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(lower[place + 15 :].split(b"\r", 1)[0])


def _request(path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


if __name__ == "__main__":
    main()
