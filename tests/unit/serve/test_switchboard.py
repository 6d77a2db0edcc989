from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from everloop.core.clock import SystemClock
from everloop.core.errors import Unavailable
from everloop.core.wire import StandIn, Target, TokenHash
from everloop.serve.hosting import Host
from everloop.serve.lineup import Lineup
from everloop.serve.switchboard import Switchboard
from tests.unit.serve.served import (
    INPUTS,
    LATER,
    Served,
    make_folder,
    shifted_model,
    version_id,
)


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return make_folder(tmp_path)


@pytest.fixture
def board(served: Served) -> Switchboard:
    made = Switchboard(served.folder, SystemClock())
    made.take_over("w0")
    return made


def arms(lineup: Lineup) -> tuple[str | None, ...]:
    found = (lineup.champion, lineup.canary and lineup.canary.scorer, lineup.shadow)
    return tuple(scorer.loaded.bundle.version_id if scorer else None for scorer in found)


def tamper(served: Served, target: Target) -> None:
    (served.folder / target.bundle / "model.txt").write_bytes(shifted_model(9.0))


def test_routes_are_read_and_reported(served: Served, board: Switchboard) -> None:
    served.route(served.seal(1), canary=served.seal(2), shadow=served.seal(3))

    assert board.is_stale()
    board.reload()

    assert (version_id(1), version_id(2), version_id(3)) == arms(board.lineup)
    assert not board.is_stale()
    assert (1, 1, ()) == (
        served.applied().epoch,
        served.applied().seen_epoch,
        served.applied().refused,
    )


def test_without_routes_nothing_answers(board: Switchboard) -> None:
    board.reload()

    assert not board.is_stale()
    assert (None, None, None) == arms(board.lineup)


def test_a_champion_that_does_not_verify_keeps_all_as_it_was(
    served: Served, board: Switchboard
) -> None:
    good, bad = served.seal(1), served.seal(2)
    served.route(good)
    board.reload()
    tamper(served, bad)
    served.route(bad, canary=good)

    board.reload()

    assert (version_id(1), None, None) == arms(board.lineup)
    applied = served.applied()
    assert (1, 2) == (applied.epoch, applied.seen_epoch)
    assert [("champion", version_id(2), "bundle.file_changed")] == [
        (refused.role, refused.version_id, refused.code) for refused in applied.refused
    ]


def test_a_canary_that_does_not_verify_is_left_out(served: Served, board: Switchboard) -> None:
    good, bad = served.seal(1), served.seal(2)
    tamper(served, bad)
    served.route(good, canary=bad)

    board.reload()

    assert (version_id(1), None, None) == arms(board.lineup)
    assert ["canary"] == [refused.role for refused in served.applied().refused]


def test_a_refused_bundle_is_taken_once_it_is_right(served: Served, board: Switchboard) -> None:
    bad = served.seal(1)
    right = (served.folder / bad.bundle / "model.txt").read_bytes()
    tamper(served, bad)
    served.route(bad)
    board.reload()
    (served.folder / bad.bundle / "model.txt").write_bytes(right)

    board.reload()

    assert (version_id(1), None, None) == arms(board.lineup)
    assert () == served.applied().refused


def test_tokens_are_revoked_even_when_the_champion_does_not_verify(
    served: Served, board: Switchboard
) -> None:
    good, bad = served.seal(1), served.seal(2)
    served.route(good)
    board.reload()
    tamper(served, bad)
    served.route(bad, tokens=[TokenHash(hash="ab", expires_at=LATER)])

    board.reload()

    assert {"ab": LATER} == board.lineup.tokens


STAND_IN = StandIn(inputs=tuple(map(msgspec.to_builtins, INPUTS)), output="rentals")


def test_a_constant_answers_although_no_version_can_be_loaded(
    served: Served, board: Switchboard
) -> None:
    bad = served.seal(1)
    tamper(served, bad)
    served.route(bad, constant=12.5, stand_in=STAND_IN, is_halted=True)

    board.reload()

    chosen = board.lineup.choose(None)
    assert (12.5, INPUTS, ()) == (
        board.lineup.constant,
        chosen.loaded.bundle.inputs,
        board.lineup.resident,
    )


def test_a_constant_takes_the_place_of_the_version_before_one_that_does_not_verify(
    served: Served, board: Switchboard
) -> None:
    good, canary, bad = served.seal(1), served.seal(2), served.seal(3)
    served.route(good, canary=canary)
    board.reload()
    tamper(served, bad)
    served.route(bad, constant=12.5, stand_in=STAND_IN, is_halted=True)

    board.reload()

    assert (12.5, (version_id(1), None, None), 2) == (
        board.lineup.constant,
        arms(board.lineup),
        served.applied().epoch,
    )


def test_a_stand_in_answers_nothing_once_the_constant_is_gone(
    served: Served, board: Switchboard
) -> None:
    bad = served.seal(1)
    tamper(served, bad)
    served.route(bad, constant=12.5, stand_in=STAND_IN)
    board.reload()
    served.route(bad)

    board.reload()

    with pytest.raises(Unavailable):
        board.lineup.choose(None)


def test_a_refused_bundle_is_not_read_again_until_it_is_another_one(
    served: Served, board: Switchboard
) -> None:
    good, bad = served.seal(1), served.seal(2)
    tamper(served, bad)
    served.route(good, canary=bad)
    board.reload()
    model = served.folder / bad.bundle / "model.txt"
    os.utime(model, ns=(1, model.stat().st_mtime_ns))
    board.complete()

    was_read = model.stat().st_atime_ns != 1
    shutil.rmtree(served.folder / bad.bundle)
    served.seal(2)
    board.complete()

    assert not was_read
    assert (version_id(1), version_id(2), None) == arms(board.lineup)


def test_a_rollback_needs_no_files(served: Served, board: Switchboard) -> None:
    first, second = served.seal(1), served.seal(2)
    served.route(first)
    board.reload()
    served.route(second, previous=first)
    board.reload()
    for path in (served.folder / first.bundle).iterdir():
        path.unlink()
    served.route(first)

    board.reload()

    assert (version_id(1), None, None) == arms(board.lineup)


@pytest.mark.parametrize("text", [b"", b"{", b'{"epoch": "x"}', b"\xff\xfe\x00"])
def test_unreadable_routes_change_nothing(served: Served, board: Switchboard, text: bytes) -> None:
    served.route(served.seal(1))
    board.reload()
    (served.folder / "routes.json").write_bytes(text)

    board.reload()

    assert (version_id(1), None, None) == arms(board.lineup)
    assert ["routes.unreadable"] == [refused.code for refused in served.applied().refused]


def test_routes_with_another_key_than_the_pinned_one_change_nothing(served: Served) -> None:
    board = Switchboard(served.folder, SystemClock(), pinned_key="00" * 32)
    board.take_over("w0")
    served.route(served.seal(1))

    board.reload()

    assert (None, None, None) == arms(board.lineup)
    assert ["routes.other_key"] == [refused.code for refused in served.applied().refused]


def test_a_sealed_bundle_of_an_older_version_does_not_pass_for_a_newer_one(
    served: Served, board: Switchboard
) -> None:
    old = served.seal(1)
    served.route(Target(version_id=version_id(2), bundle=old.bundle))

    board.reload()

    assert (None, None, None) == arms(board.lineup)
    assert ["bundle.other_version"] == [refused.code for refused in served.applied().refused]


@pytest.mark.parametrize("path", ["../elsewhere", "/tmp", "bundles/../..", "bundles/a/b", ""])
def test_a_bundle_path_cannot_lead_out(served: Served, board: Switchboard, path: str) -> None:
    served.route(Target(version_id=version_id(1), bundle=path))

    board.reload()

    assert ["bundle.unreadable"] == [refused.code for refused in served.applied().refused]


def test_what_no_route_names_is_let_go(served: Served, board: Switchboard) -> None:
    for number in range(1, 5):
        served.route(served.seal(number))
        board.reload()

    kept = {key[0] for key in board._resident}

    assert {version_id(3), version_id(4)} == kept


def test_workers_of_an_earlier_and_larger_group_hold_back_no_report(served: Served) -> None:
    served.route(served.seal(1))
    for worker in ("w0", "w1"):
        earlier = Switchboard(served.folder, SystemClock())
        earlier.reload()
        earlier.take_over(worker)
    served.route(served.seal(2))

    host = Host([served.folder], SystemClock(), key=None, log=None)
    host.load()
    for board in host.boards.values():
        board.take_over("w0")

    assert 2 == served.applied().epoch
