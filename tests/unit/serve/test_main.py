from __future__ import annotations

import socket
from pathlib import Path

import pytest

from everloop.serve.main import main


def test_help_tells_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert 0 == ended.value.code
    assert "--public-key" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--home", ".", "--port", "x"], ["--colour"]])
def test_wrong_options_are_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(arguments)

    assert "serving." in capsys.readouterr().err


def test_a_missing_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--home", str(tmp_path / "nowhere")])

    assert 2 == code
    assert "is no folder" in capsys.readouterr().err


def test_a_taken_port_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code = main(["--home", str(tmp_path), "--port", str(taken.getsockname()[1])])

    assert 1 == code
    assert "--port 0" in capsys.readouterr().err


def test_a_process_that_could_not_start_leaves_the_folder_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = ["--home", str(tmp_path), "--port", str(taken.getsockname()[1])]
        assert 1 == main(arguments)
        assert 1 == main(arguments)
