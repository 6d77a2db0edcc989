"""Callers of the gRPC port that send damage, hold streams open, or unpack to much."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest

from tests.campaign.grpc_fuzz import (
    END_HEADERS,
    HEADERS,
    PREFACE,
    SERVICE,
    SETTINGS,
    Fuzz,
    frame,
    fuzz,
    head,
    sound_call,
)
from tests.unit.serve.served import make_folder, wait_until

LINKS, STREAMS = 8, 100  # more than the calls that may be in flight


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fuzz, str]]:
    served = make_folder(tmp_path_factory.mktemp("grpc") / "bikes")
    served.route(served.seal(1))
    try:
        address = served.start("--grpc-port", "0").grpc
        assert address is not None
        yield Fuzz(served, address, random.Random(1)), address
    finally:
        served.close()


def test_damaged_calls_and_connections_get_clean_answers(tmp_path: Path) -> None:
    told = fuzz(tmp_path / "bikes", rounds=150, seed=41)

    assert [] == told["found"]


def test_streams_that_are_begun_and_never_ended_take_nobodys_place(
    desk: tuple[Fuzz, str],
) -> None:
    found, address = desk
    host, _, port = address.rpartition(":")
    begun = b"".join(
        frame(HEADERS, END_HEADERS, 2 * number + 1, head()) for number in range(STREAMS)
    )
    with ExitStack() as held:
        for _ in range(LINKS):
            link = held.enter_context(socket.create_connection((host, int(port))))
            link.sendall(PREFACE + frame(SETTINGS, 0, 0) + begun)
            link.recv(1)

        assert [("OK", "")] * 5 == [found.ask("ModelInfer", sound_call()) for _ in range(5)]


def test_a_path_that_is_no_text_ends_no_port(desk: tuple[Fuzz, str]) -> None:
    """It ends the loop of grpcio that takes calls, which is begun anew."""
    found, address = desk
    host, _, port = address.rpartition(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as link:
            link.sendall(PREFACE + frame(SETTINGS, 0, 0))
            link.sendall(frame(HEADERS, END_HEADERS, 1, head(method="\x93")))
            link.settimeout(0.2)
            with suppress(OSError):
                while link.recv(65_536):
                    pass

        wait_until(lambda: found.ask("ModelInfer", sound_call())[0] == "OK")
    found.require_alive()


def test_large_messages_are_let_go_with_their_calls(desk: tuple[Fuzz, str]) -> None:
    """Kept until the collector runs, they were as many megabytes as were sent."""
    found, _ = desk
    before = found.resident_bytes()

    for _ in range(150):
        assert "INVALID_ARGUMENT" == found.ask("ModelInfer", b"\xff" * 1_000_000)[0]

    assert found.resident_bytes() - before < 75_000_000


def test_a_message_that_unpacks_to_much_is_refused(desk: tuple[Fuzz, str]) -> None:
    found, address = desk
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(
        address, compression=grpc.Compression.Gzip, options=options
    ) as channel:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            call(bytes(100_000_000), timeout=60)

    assert "RESOURCE_EXHAUSTED" == refused.value.code().name
    found.require_alive()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "RepositoryIndex"])
def test_a_message_of_another_kind_is_the_callers_fault(
    desk: tuple[Fuzz, str], method: str
) -> None:
    code, details = desk[0].ask(method, b"\xff" * 20)

    assert "INVALID_ARGUMENT" == code
    assert f"The message is no inference.{method}Request." in details
