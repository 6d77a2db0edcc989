"""Where an instance lies, and which server runs on it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from everloop.app.home import Home, find_home
from everloop.app.processes import find_running, is_serving
from everloop.core.errors import NotFound


@pytest.fixture(autouse=True)
def no_named_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERLOOP_HOME", raising=False)


def test_the_nearest_folder_upwards_is_the_home(tmp_path: Path) -> None:
    (tmp_path / ".everloop").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)

    assert tmp_path / ".everloop" == find_home(tmp_path / "a" / "b").path


def test_the_variable_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".everloop").mkdir()
    monkeypatch.setenv("EVERLOOP_HOME", str(tmp_path / "elsewhere"))

    assert tmp_path / "elsewhere" == find_home(tmp_path).path


def test_no_home_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="everloop init"):
        find_home(tmp_path)


def test_a_home_that_others_can_enter_is_closed(tmp_path: Path) -> None:
    (tmp_path / ".everloop").mkdir(mode=0o755)

    home = Home(tmp_path / ".everloop").create()

    assert 0o700 == stat.S_IMODE(home.path.stat().st_mode)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 4194305}', "null"])
def test_a_server_file_of_no_living_process_is_no_server(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path / ".everloop").create()
    home.server_file.write_text(text)

    assert home.running_server() is None


def test_a_living_server_is_found(tmp_path: Path) -> None:
    home = Home(tmp_path / ".everloop").create()
    home.server_file.write_text(json.dumps({"url": "http://x", "pid": os.getpid()}))

    assert {"url": "http://x", "pid": os.getpid()} == home.running_server()


def test_another_process_with_a_serving_processes_id_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://x:1", "pid": os.getpid()}))

    assert not is_serving(os.getpid(), tmp_path)
    assert find_running(tmp_path) is None


def test_another_program_that_names_the_folder_is_no_serving_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "input()", "--home", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as other:
        found = is_serving(other.pid, tmp_path)
        other.communicate(b"\n")

    assert not found
