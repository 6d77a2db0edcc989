"""Refusals on the command line: an exit code, a sentence, a hint, and never a trace."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from everloop.app.client import connect
from everloop.cli import failures
from everloop.cli.main import main
from everloop.core import errors
from everloop.core.errors import EverloopError
from everloop.core.filter.faults import fault


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InvalidInput, 2),
        (errors.NotFound, 3),
        (errors.Denied, 4),
        (errors.NotAuthenticated, 4),
        (errors.Conflict, 5),
        (errors.StaleVersion, 5),
        (errors.GateFailed, 6),
        (errors.IntegrityError, 7),
        (errors.Unavailable, 8),
        (errors.MissingExtra, 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(kind: type[EverloopError], code: int) -> None:
    assert code == failures.exit_code(kind)


def test_a_refusal_prints_its_message_and_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.NotFound("model.not_found", "There is no \x1b[31mmodel.", hint="List them.")

    assert 3 == failures.report(error)

    told = capsys.readouterr()
    assert "error: There is no \\x1b[31mmodel.\nhint: List them.\n" == told.err
    assert "" == told.out


def test_a_mistake_in_a_filter_is_pointed_at(capsys: pytest.CaptureFixture[str]) -> None:
    error = fault("name = 'x' or statsu = 'y'", 14, "What", "How.")

    assert 2 == failures.report(error)

    assert (
        "error: What at position 15 of the filter.\n"
        "  name = 'x' or statsu = 'y'\n"
        "                ^\n"
        "hint: How.\n"
    ) == capsys.readouterr().err


def test_an_unexpected_error_is_one_line_and_its_trace_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".everloop").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVERLOOP_HOME", raising=False)
    monkeypatch.delenv("EVERLOOP_DEBUG", raising=False)

    assert 1 == failures.report_unexpected(ZeroDivisionError("nobody thought of this"))

    told = capsys.readouterr().err
    assert "nobody thought of this" in told
    assert "Traceback" not in told
    assert "ZeroDivisionError" in (tmp_path / ".everloop" / "cli.log").read_text()


def test_an_unknown_command_names_the_one_that_looks_alike(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert 2 == main(["modles"])

    assert "Did you mean 'models'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["init", "--nope"], ["up", "--port", "x"], ["completion"]])
def test_a_wrong_command_line_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert 2 == main(arguments)

    assert capsys.readouterr().err.startswith("error: ")


def test_outside_a_project_the_hint_tells_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVERLOOP_HOME", raising=False)
    monkeypatch.delenv("EVERLOOP_URL", raising=False)

    assert 3 == main(["models", "list"])

    assert "everloop init" in capsys.readouterr().err


def test_what_the_users_own_code_raised_names_the_line_and_does_not_blame_everloop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".everloop").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVERLOOP_HOME", raising=False)
    monkeypatch.delenv("EVERLOOP_DEBUG", raising=False)
    code = compile("def fit():\n    raise ValueError('odd rows')\n", tmp_path / "own.py", "exec")
    names: dict[str, Callable[[], None]] = {}
    exec(code, names)
    with pytest.raises(ValueError, match="odd rows") as raised:
        names["fit"]()

    assert 1 == failures.report_pipeline(raised.value, tmp_path)

    told = capsys.readouterr().err
    assert "error: the pipeline failed at own.py, line 2: ValueError: odd rows" in told
    assert "inside Everloop" not in told
    assert "odd rows" in (tmp_path / ".everloop" / "cli.log").read_text()


@pytest.mark.parametrize("address", ["notaurl", "ftp://example.org", "127.0.0.1:7300"])
def test_a_mistyped_address_is_refused_and_never_means_the_folder_at_hand(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 2 == main(["--url", address, "data", "list"])
    monkeypatch.setenv("EVERLOOP_URL", address)
    assert 2 == main(["data", "list"])

    assert 2 == capsys.readouterr().err.count("no server's address")


def test_the_projects_name_for_a_server_is_that_of_the_everloop_yaml_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "everloop.yaml").write_text("project: shop\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.delenv("EVERLOOP_PROJECT", raising=False)

    with connect("http://127.0.0.1:9", token="evl_1") as client:
        assert "shop" == client.project


@pytest.mark.parametrize("token", ["evl_\u00e9", "evl_1\nevl_2"])
def test_a_token_that_no_header_can_carry_is_refused_before_it_is_sent(token: str) -> None:
    with pytest.raises(errors.InvalidInput, match="no token has"):
        connect("http://127.0.0.1:9", project="shop", token=token)


def test_a_question_that_nobody_can_answer_tells_how_to_agree_beforehand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())

    assert 2 == main(["rollback", "shop"])

    assert "hint: Give --yes" in capsys.readouterr().err


def test_a_ledger_is_not_exported_into_a_folder_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 2 == main(["audit", "export", str(tmp_path / "none" / "ledger.zip")])

    assert "can't be written" in capsys.readouterr().err
