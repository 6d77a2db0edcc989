"""Damaged calls and damaged connections to the gRPC port of the serving process.

Calls carry messages with flipped, missing and doubled bytes; connections carry HTTP/2 frames that
are damaged, claim huge lengths, begin streams that never end or reset them as fast as they can.
Whatever comes, each call has a clean status, a sound call is answered now and then, and the memory
stays what it was.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc

from everloop.serve.proto import load_messages
from tests.parts.memory import resident_bytes
from tests.unit.serve.served import TOKEN, Served, make_folder

SAYS: Final = load_messages()
SERVICE: Final = "inference.GRPCInferenceService"
METHODS: Final = (
    *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"),
    *("ModelInfer", "ModelInfer", "RepositoryIndex", "RepositoryModelLoad"),
    *("RepositoryModelUnload", "Nothing"),
)
# Whose fault it is must be said: these say that it is the caller's, or what the caller may do.
CLEAN: Final = {
    *("OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND"),
    *("FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"),
}
# What a call gets that was taken while the port is opened anew, which takes a moment.
REOPENED: Final = {"UNAVAILABLE", "CANCELLED"}
REOPENS_S: Final = 0.2
REOPENINGS: Final = 50
CHECK_EVERY: Final = 100
GROWTH_BYTES: Final = 64_000_000
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def fuzz(folder: Path, *, rounds: int, seed: int) -> dict[str, object]:
    """Send so many damaged calls and connections; return statuses, and what is wrong."""
    served = make_folder(folder)
    served.route(served.seal(1))
    try:
        address = served.start("--grpc-port", "0").grpc
        assert address is not None
        return Fuzz(served, address, random.Random(seed)).run(rounds)
    finally:
        served.close()


def sound_call() -> bytes:
    """A call that is answered."""
    values: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("hour", "INT64", {"int64_contents": [8]}),
        ("temperature", "FP64", {"fp64_contents": [21.5]}),
        ("working_day", "BOOL", {"bool_contents": [True]}),
        ("weather", "BYTES", {"bytes_contents": [b"rain"]}),
    )
    inputs = [
        {"name": name, "datatype": kind, "shape": [1, 1], "contents": contents}
        for name, kind, contents in values
    ]
    data: bytes = SAYS.ModelInferRequest(model_name="bikes", inputs=inputs).SerializeToString()
    return data


def frame(
    kind: int, flags: int, stream: int, body: bytes = b"", length: int | None = None
) -> bytes:
    """One frame of HTTP/2 (RFC 9113, 4.1); its length may be a lie."""
    size = len(body) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + body


def head(method: str = "ModelInfer", kind: str = "application/grpc", **more: str) -> bytes:
    """The header block of a call, each field a literal that is not indexed (RFC 7541, 6.2.2)."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": f"/{SERVICE}/{method}",
        ":authority": "x", "content-type": kind, "te": "trailers",
        "authorization": f"Bearer {TOKEN}", **more,
    }  # fmt: skip
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())


def _text(value: str) -> bytes:
    data = value.encode("latin-1")
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, size = bytearray([127]), len(data) - 127
    while size >= 128:
        rest.append(size % 128 + 128)
        size //= 128
    return bytes([*rest, size]) + data


def message(data: bytes, *, packed: int = 0, length: int | None = None) -> bytes:
    """A message with gRPC's prefix; its length may be a lie."""
    return struct.pack(">BI", packed, len(data) if length is None else length) + data


class Fuzz:
    """One campaign against one serving process."""

    def __init__(self, served: Served, address: str, chance: random.Random) -> None:
        host, _, port = address.rpartition(":")
        self._at = host, int(port)
        self._address = address
        self._served = served
        self._chance = chance
        self._statuses: Counter[str] = Counter()
        self._found: list[str] = []
        self._channel = grpc.insecure_channel(address)

    def run(self, rounds: int) -> dict[str, object]:
        """Do so many rounds."""
        before = 0
        with self._channel:
            for number in range(rounds):
                if number % CHECK_EVERY == 0:
                    self.require_alive()
                if number == min(2 * CHECK_EVERY, rounds - 1):
                    before = self.resident_bytes()
                self._once(number)
            self.require_alive()
        grown = self.resident_bytes() - before
        if grown > GROWTH_BYTES:
            self._found.append(f"the memory grew by {grown / 1e6:.0f} MB")
        return {
            "statuses": dict(sorted(self._statuses.items())),
            "found": self._found[:20],
            "grown_mb": round(grown / 1e6, 1),
        }

    def _once(self, number: int) -> None:
        if self._chance.random() < 0.7:
            self._call(number)
            return
        build: Callable[[], bytes] = self._chance.choice(
            (self._damaged, self._huge, self._flood_of_resets, self._half_open, self._not_grpc,
             self._control)
        )  # fmt: skip
        sent = build()
        with contextlib.suppress(OSError), socket.create_connection(self._at, timeout=5) as link:
            link.sendall(sent)
            if self._chance.random() < 0.5:
                link.shutdown(socket.SHUT_WR)
            link.settimeout(0.05)
            while link.recv(65_536):
                pass

    def _call(self, number: int) -> None:
        data = bytearray(sound_call() if self._chance.random() < 0.95 else b"\0")
        for _ in range(self._chance.choice((1, 1, 2, 8))):
            place = self._chance.randrange(len(data) + 1)
            kind = self._chance.randrange(4)
            if kind == 0 and place < len(data):
                data[place] = self._chance.randrange(256)
            elif kind == 1:
                del data[place : place + self._chance.choice((1, 2, 20))]
            elif kind == 2:
                data[place:place] = data[: self._chance.randrange(1, 100)]
            else:
                data[place:place] = self._chance.choice((b"\xff" * 10, b"\0", b"\x7f\xff\xff\xff"))
        method = self._chance.choice(METHODS)
        code, details = self.ask(method, bytes(data))
        self._statuses[code] += 1
        if code in REOPENED:
            self.require_alive()
        elif code not in CLEAN or "Traceback" in details or "Exception" in details:
            self._found.append(f"{number}: {method}: {code} {details[:300]} to {bytes(data)!r}")

    def ask(self, method: str, data: bytes) -> tuple[str, str]:
        """Send one message as it is; return the status and what it says."""
        call = self._channel.unary_unary(f"/{SERVICE}/{method}")
        metadata = (("authorization", f"Bearer {TOKEN}"),)
        try:
            call(data, metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def _sound(self, stream: int = 1) -> bytes:
        return frame(HEADERS, END_HEADERS, stream, head()) + frame(
            DATA, END_STREAM, stream, message(sound_call())
        )

    def _damaged(self) -> bytes:
        data = bytearray(PREFACE + frame(SETTINGS, 0, 0) + self._sound() + self._sound(3))
        for _ in range(self._chance.choice((1, 1, 3, 10))):
            data[self._chance.randrange(len(data))] = self._chance.randrange(256)
        return bytes(data[: self._chance.randrange(1, len(data)) if self._chance.random() < 0.3
                          else len(data)])  # fmt: skip

    def _huge(self) -> bytes:
        begun = PREFACE + frame(SETTINGS, 0, 0)
        called = frame(HEADERS, END_HEADERS, 1, head())
        return begun + self._chance.choice(
            (
                frame(DATA, 0, 1, b"x", length=(1 << 24) - 1),
                frame(HEADERS, 0, 1, head(), length=(1 << 24) - 1),
                called + frame(DATA, 1, 1, message(b"x", length=(1 << 32) - 1)),
                called + frame(DATA, 1, 1, message(b"x" * 100, packed=1)),
                frame(HEADERS, END_HEADERS, 1, head(x="y" * 60_000)),
                # A longer one shows how grpcio grows, and hides whether we do.
                frame(HEADERS, 0, 1, head()) + frame(CONTINUATION, 0, 1, b"\0\1a\1b" * 1_000) * 10,
                frame(SETTINGS, 0, 0, struct.pack(">HI", 4, (1 << 31) - 1) * 50),
            )
        )  # fmt: skip

    def _flood_of_resets(self) -> bytes:
        count = self._chance.choice((10, 200, 1_000))
        return PREFACE + frame(SETTINGS, 0, 0) + b"".join(
            frame(HEADERS, END_HEADERS, 2 * number + 1, head())
            + frame(RST, 0, 2 * number + 1, struct.pack(">I", 8))
            for number in range(count)
        )  # fmt: skip

    def _half_open(self) -> bytes:
        begun = b"".join(
            frame(HEADERS, END_HEADERS, 2 * number + 1, head())
            + frame(DATA, 0, 2 * number + 1, message(sound_call())[: self._chance.randrange(60)])
            for number in range(self._chance.choice((1, 20, 100)))
        )
        return PREFACE + frame(SETTINGS, 0, 0) + begun

    def _not_grpc(self) -> bytes:
        kinds = (
            "application/json",
            "text/html",
            "application/grpc-web",
            "",
            "application/x-pickle",
        )
        return self._chance.choice(
            (
                b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
                b"\x16\x03\x01\x02\x00" + b"\1" * 100,
                bytes(self._chance.randrange(256) for _ in range(300)),
                PREFACE,
                PREFACE + frame(SETTINGS, 0, 0) + frame(
                    HEADERS, END_HEADERS, 1, head(kind=self._chance.choice(kinds))
                ) + frame(DATA, END_STREAM, 1, message(sound_call())),
            )
        )  # fmt: skip

    def _control(self) -> bytes:
        many = self._chance.choice((10, 2_000))
        return PREFACE + frame(SETTINGS, 0, 0) + self._chance.choice(
            (
                frame(PING, 0, 0, b"12345678") * many,
                frame(SETTINGS, 0, 0) * many,
                frame(WINDOW, 0, 0, struct.pack(">I", 0)) * many,
                frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)) + self._sound(),
                frame(DATA, 0, 5, b"") * many,
                frame(99, 255, 7, b"x" * 100) * many,
            )
        )  # fmt: skip

    def require_alive(self) -> None:
        """Ask a sound call over a channel of its own, again while the port is opened anew."""
        for _ in range(REOPENINGS):
            try:
                data = self._ask_sound()
            except grpc.RpcError as error:
                if error.code().name not in REOPENED:
                    raise
                self._statuses["sound call cut off"] += 1
                time.sleep(REOPENS_S)
            else:
                assert 1 == len(SAYS.ModelInferResponse.FromString(data).outputs)
                return
        raise AssertionError("the port was not opened anew")

    def _ask_sound(self) -> bytes:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, options=options) as channel:
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            metadata = (("authorization", f"Bearer {TOKEN}"),)
            data: bytes = call(sound_call(), metadata=metadata, timeout=30, wait_for_ready=True)
        return data

    def resident_bytes(self) -> int:
        """Return how much memory the serving process has."""
        assert self._served.process is not None
        return resident_bytes(self._served.process.pid)
