"""The serving process itself: real bundles, a real socket, real signals."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from everloop.core.errors import EverloopError, NotAuthenticated, Unavailable
from everloop.core.wire import Arm, Status, TokenHash
from everloop.kernel.authz import hash_secret
from everloop.serve.client import PredictClient
from everloop.serve.protocol import InputField
from everloop.serve.runtime import open_model
from tests.unit.serve.served import (
    INPUTS,
    MODEL,
    ROW,
    TOKEN,
    Served,
    make_folder,
    shifted_model,
    version_id,
    wait_until,
)

EXPECTED = float(
    open_model("lightgbm", {"model.txt": MODEL}, 4).predict(np.array([[8.0, 21.5, 1, 2]]))[0]
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = make_folder(tmp_path / "bikes")
    yield made
    made.close()


class Load(threading.Thread):
    """Asks without a pause and keeps what it got."""

    def __init__(self, client: PredictClient) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.outputs: list[float] = []
        self.ids: list[str] = []
        self.problems: list[Exception] = []
        self.is_over = False

    def run(self) -> None:
        while not self.is_over and not self.problems:
            try:
                (found,) = self.client.predict([ROW]).predictions
            except EverloopError as error:
                self.problems.append(error)
            else:
                assert found.output is not None
                self.outputs.append(found.output)
                self.ids.append(found.id)

    def has(self, count: int) -> bool:
        return len(self.outputs) >= count or bool(self.problems)


def test_it_answers_without_a_training_framework(served: Served) -> None:
    served.route(served.seal(1))
    served.start()
    answer = served.client().predict([ROW])

    assert EXPECTED == answer.predictions[0].output
    assert served.process is not None
    maps = Path(f"/proc/{served.process.pid}/maps").read_text()
    assert [] == [name for name in ("libarrow", "sqlite3", "/scipy/", "/sklearn/") if name in maps]


def test_versions_change_under_load_without_a_failed_request(served: Served) -> None:
    first, second = served.seal(1), served.seal(2, shifted_model(100.0))
    served.route(first)
    served.start()
    loads = [Load(served.client()) for _ in range(3)]
    for load in loads:
        load.start()

    for epoch in range(12):
        served.await_epoch(served.route(second if epoch % 2 == 0 else first, previous=first))
        seen = [len(load.outputs) for load in loads]
        wait_until(
            lambda seen=seen: all(  # type: ignore[misc]
                load.has(count + 3) for load, count in zip(loads, seen, strict=True)
            )
        )
    for load in loads:
        load.is_over = True
        load.join(10)

    assert [] == [problem for load in loads for problem in load.problems]
    outputs = {output for load in loads for output in load.outputs}
    assert [EXPECTED, EXPECTED + 100.0] == pytest.approx(sorted(outputs))
    logged = {row.id for row in served.rows()}
    assert set() == {id_ for load in loads for id_ in load.ids} - logged


def test_a_kill_loses_no_acknowledged_prediction(served: Served) -> None:
    served.route(served.seal(1), shadow=served.seal(2))
    acknowledged: list[str] = []
    for _ in range(3):
        served.start()
        loads = [Load(served.client()) for _ in range(2)]
        for load in loads:
            load.start()
        wait_until(lambda loads=loads: all(load.has(60) for load in loads))  # type: ignore[misc]
        served.stop(signal.SIGKILL)
        for load in loads:
            load.join(10)
            acknowledged += load.ids
            assert all(isinstance(problem, Unavailable) for problem in load.problems)
    served.start()

    logged = [row.id for row in served.rows()]

    assert set() == set(acknowledged) - set(logged)
    assert len(logged) == len(set(logged))


def test_a_broken_canary_is_never_seen_by_a_caller(served: Served) -> None:
    other = (*INPUTS[:3], InputField(name="wind", dtype="float64"))
    broken = served.seal(2, inputs=other, golden=())
    served.route(served.seal(1), canary=broken, share=0.5)
    served.start()

    client = served.client()
    found = [client.predict([ROW]).predictions[0] for _ in range(200)]

    assert {(EXPECTED, version_id(1))} == {(one.output, one.version) for one in found}
    by_canary = [row for row in served.rows() if row.arm is Arm.CANARY]
    assert 60 < len(by_canary) < 140
    assert {(Status.ERROR, version_id(2), version_id(1))} == {
        (row.status, row.version, row.fallback_version) for row in by_canary
    }


def test_a_shadow_answers_behind_the_caller_and_lands_in_the_log(served: Served) -> None:
    served.route(served.seal(1), shadow=served.seal(2, shifted_model(7.0)))
    served.start()
    client = served.client()
    for _ in range(20):
        client.predict([ROW] * 3)

    wait_until(lambda: len(served.rows()) == 60)

    rows = served.rows()
    assert {EXPECTED} == {row.output for row in rows}
    assert {version_id(2)} == {row.shadow_version for row in rows}
    assert [EXPECTED + 7.0] * 60 == pytest.approx([row.shadow_output for row in rows])


def test_a_bundle_changed_on_disk_is_refused_and_the_old_version_goes_on(served: Served) -> None:
    first, second = served.seal(1), served.seal(2)
    served.route(first)
    served.start()
    (served.folder / second.bundle / "model.txt").write_bytes(shifted_model(50.0))

    applied = served.await_epoch(served.route(second, previous=first))

    assert (1, "bundle.file_changed") == (applied.epoch, applied.refused[0].code)
    assert EXPECTED == served.client().predict([ROW]).predictions[0].output
    assert ("bundle.file_changed",) == served.client().health().refused


def test_before_the_first_release_it_is_up_but_not_ready(served: Served) -> None:
    served.route(None)
    served.start()
    client = served.client()

    assert False is client.health().ready
    with pytest.raises(Unavailable) as refused:
        client.predict([ROW])
    assert "model.none" == refused.value.code


def test_a_revoked_token_ends_within_one_change_of_the_routes(served: Served) -> None:
    target = served.seal(1)
    served.route(target)
    served.start()
    client = served.client()
    client.predict([ROW])

    served.await_epoch(served.route(target, tokens=[]))

    with pytest.raises(NotAuthenticated):
        client.predict([ROW])


def test_on_sigterm_it_ends_in_order(served: Served) -> None:
    served.route(served.seal(1), shadow=served.seal(2))
    served.start()
    client = served.client()
    ids = [client.predict([ROW]).predictions[0].id for _ in range(50)]

    code = served.stop(signal.SIGTERM)

    assert 0 == code
    served.start()
    rows = {row.id: row for row in served.rows()}
    assert set(ids) == set(rows)
    assert {Status.OK} == {row.shadow_status for row in rows.values()}


def test_a_second_process_for_one_folder_is_refused(served: Served) -> None:
    served.route(served.seal(1))
    served.start()
    rival = Served(served.folder)

    with pytest.raises(AssertionError, match=r"serving\.running"):
        rival.start()


def test_a_client_finds_a_restarted_process_by_itself(served: Served) -> None:
    served.route(served.seal(1))
    address = served.start()
    client = served.client()
    client.predict([ROW])
    served.stop()
    port = address.url.rpartition(":")[2]
    served.start("--port", port)

    assert EXPECTED == client.predict([ROW]).predictions[0].output


def test_an_expired_token_is_refused(served: Served) -> None:
    from datetime import UTC, datetime

    past = TokenHash(hash=hash_secret(TOKEN), expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    served.route(served.seal(1), tokens=[past])
    served.start()

    with pytest.raises(NotAuthenticated):
        served.client().predict([ROW])


def test_a_full_disk_stops_the_log_but_not_the_answers(served: Served) -> None:
    served.route(served.seal(1))
    served.start()
    assert served.process is not None
    client = served.client()
    first = client.predict([ROW])
    size = next((served.folder / "log").iterdir()).stat().st_size
    pid, kind = served.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, kind, (size // 2, resource.RLIM_INFINITY))

    # The file that is open has its space already: what does not fit into it needs a new one.
    lost = client.predict([ROW] * 60_000)
    health = client.health()
    resource.prlimit(pid, kind, before)

    assert [True, False] == [first.logged, lost.logged]
    assert {EXPECTED} == {one.output for one in lost.predictions}
    assert 60_000 == health.unlogged
    wait_until(lambda: client.predict([ROW]).logged)
