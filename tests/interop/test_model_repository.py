from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from everloop.serve.runtime import open_model
from tests.interop.standing import Standing, seal, standing
from tests.unit.serve.protocols.desk import columns
from tests.unit.serve.served import MODEL, TOKEN, make_folder, shifted_model

REAL = open_model("lightgbm", {"model.txt": MODEL}, 4).predict
EXPECTED = float(REAL(np.array([[8.0, 21.5, 1.0, 2.0]]))[0])
ENOUGH = 16  # fresh connections: all of them go to one of two workers once in 30,000 times


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "models"
    for name in ("bikes", "cars"):
        seal(home, name)
    return home


@pytest.fixture
def server(folder: Path) -> Iterator[Standing]:
    with standing(folder, "--workers", "2") as found:
        yield found


def ask(server: Standing, path: str, body: Any = None) -> tuple[int, Any]:
    # A connection of its own: the kernel chooses a worker for each.
    connection = HTTPConnection(server.http, timeout=30)
    try:
        connection.request("POST", f"/v2/{path}", json.dumps(body or {}))
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def statuses(server: Standing, name: str = "bikes") -> set[int]:
    body = {"inputs": columns()}
    return {ask(server, f"models/{name}/infer", body)[0] for _ in range(ENOUGH)}


def answers(server: Standing) -> set[float]:
    body = {"inputs": columns()}
    told = [ask(server, "models/bikes/infer", body)[1] for _ in range(ENOUGH)]
    return {each["outputs"][0]["data"][0] for each in told}


def states(server: Standing) -> dict[str, str]:
    return {each["name"]: each["state"] for each in ask(server, "repository/index")[1]}


def put_in_place(folder: Path, number: int, model: bytes) -> None:
    """Put another bundle in the place of one, at once."""
    made = seal(folder.parent / f"new-{number}", "bikes", number, model)
    (folder / "bikes").rename(folder.parent / f"old-{number}")
    made.rename(folder / "bikes")


def test_a_bundle_goes_and_comes_back_in_all_workers(server: Standing) -> None:
    assert {200} == statuses(server)

    assert 200 == ask(server, "repository/models/bikes/unload")[0]
    assert {404} == statuses(server)
    assert {200} == statuses(server, "cars")
    assert {"bikes": "UNAVAILABLE", "cars": "READY"} == states(server)
    assert ["cars"] == [
        each["name"] for each in ask(server, "repository/index", {"ready": True})[1]
    ]

    assert 200 == ask(server, "repository/models/bikes/load")[0]
    assert {200} == statuses(server)
    assert {"bikes": "READY", "cars": "READY"} == states(server)


def test_what_is_not_there_is_neither_loaded_nor_unloaded(server: Standing) -> None:
    for deed in ("load", "unload"):
        status, told = ask(server, f"repository/models/nobody/{deed}")

        assert 404 == status
        assert "no bundle of 'nobody'" in told["error"]
    assert 400 == ask(server, "repository/index", [1])[0]


def test_a_bundle_that_does_not_verify_is_not_loaded_and_the_old_one_answers(
    folder: Path, server: Standing
) -> None:
    put_in_place(folder, 2, shifted_model(7.0))
    with (folder / "bikes" / "model.txt").open("ab") as file:
        file.write(b"\n")

    status, told = ask(server, "repository/models/bikes/load")

    assert 409 == status
    assert "not what was sealed" in told["error"]
    assert {EXPECTED} == answers(server)


def test_a_bundle_is_exchanged_under_load_without_a_failed_or_a_wrong_answer(
    folder: Path, server: Standing
) -> None:
    found: set[tuple[int, str, float]] = set()
    problems: list[Exception] = []
    is_over = threading.Event()

    def keep_asking() -> None:
        body = json.dumps({"inputs": columns()})
        connection = HTTPConnection(server.http, timeout=30)
        try:
            while not is_over.is_set():
                connection.request("POST", "/v2/models/bikes/infer", body)
                reply = connection.getresponse()
                told = json.loads(reply.read())
                answer = told["outputs"][0]["data"][0]
                found.add((reply.status, told["model_version"], round(answer, 6)))
        except (OSError, HTTPException, KeyError) as error:
            problems.append(error)
        finally:
            connection.close()

    askers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        for number in range(2, 5):
            put_in_place(folder, number, shifted_model(float(number)))
            assert 200 == ask(server, "repository/models/bikes/load")[0]
            assert {round(EXPECTED + number, 6)} == {round(one, 6) for one in answers(server)}
    finally:
        is_over.set()
        for asker in askers:
            asker.join()

    assert [] == problems
    sound = {(200, "1.1.0", round(EXPECTED, 6))} | {
        (200, f"1.{number}.0", round(EXPECTED + number, 6)) for number in range(2, 5)
    }
    assert found <= sound
    assert (200, "1.4.0", round(EXPECTED + 4, 6)) in found


def test_a_bundle_that_is_put_into_the_folder_can_be_loaded(folder: Path, server: Standing) -> None:
    seal(folder.parent / "elsewhere", "boats").rename(folder / "boats")

    assert 200 == ask(server, "repository/models/boats/load")[0]
    assert {200} == statuses(server, "boats")


def test_a_worker_that_starts_anew_does_what_was_wanted_before(server: Standing) -> None:
    import psutil

    assert 200 == ask(server, "repository/models/bikes/unload")[0]
    for worker in psutil.Process(server.process.pid).children():
        worker.kill()

    waited = ask_until_answered(server)
    assert {404} == waited | statuses(server)


def ask_until_answered(server: Standing) -> set[int]:
    """Wait for the new workers; connections to the dead ones wait for them, or break."""
    found: set[int] = set()
    for _ in range(200):
        try:
            found |= statuses(server)
        except OSError:
            continue
        return found
    return found


def test_where_releases_decide_the_index_is_told_and_nothing_is_loaded(tmp_path: Path) -> None:
    served = make_folder(tmp_path / "bikes")
    try:
        served.route(served.seal(1))
        url = served.start().url
        token = {"authorization": f"Bearer {TOKEN}"}

        index = httpx.post(f"{url}/v2/repository/index", headers=token)
        closed = httpx.post(f"{url}/v2/repository/models/bikes/unload", headers=token)
        unknown = httpx.post(f"{url}/v2/repository/index")
    finally:
        served.close()
        shutil.rmtree(tmp_path, ignore_errors=True)

    assert [{"name": "bikes", "version": "1.1.0", "state": "READY", "reason": ""}] == index.json()
    assert (403, 401) == (closed.status_code, unknown.status_code)
    assert "release" in closed.json()["error"]


def test_from_outside_bundles_are_loaded_only_where_that_is_allowed(folder: Path) -> None:
    with standing(folder, "--host", "0.0.0.0") as found:
        port = found.http.rpartition(":")[2]
        refused = httpx.post(f"http://127.0.0.1:{port}/v2/repository/models/bikes/unload")

        assert 403 == refused.status_code
        assert "EVERLOOP_REPOSITORY" in refused.json()["error"]


def test_versions_of_one_model_are_called_as_their_folders_as_seldon_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERLOOP_NAMES", "folder")
    (folder / "bikes").rename(folder / "bikes_1")
    shutil.copytree(folder / "bikes_1", folder.parent / "bikes_2")

    with standing(folder) as server:
        (folder.parent / "bikes_2").rename(folder / "bikes_2")
        loaded = ask(server, "repository/models/bikes_2/load")[0]
        told = ask(server, "models/bikes_2/infer", {"inputs": columns()})
        left = ask(server, "repository/models/bikes_1/unload")[0]

        assert [200, 200, 200] == [loaded, told[0], left]
        assert "bikes_2" == told[1]["model_name"]
        assert {200} == statuses(server, "bikes_2")
        assert {404} == statuses(server, "bikes_1")
