from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from everloop.core.errors import InvalidInput
from everloop.serve.tokens import NEVER, TokensFile, read_tokens

ONE, OTHER = "a1" * 32, "b2" * 32


def test_a_line_is_a_token_and_perhaps_its_end(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# who may ask\n{ONE}  # the shop\n\n{OTHER} 2026-12-24T18:00:00Z\n")

    assert {ONE: NEVER, OTHER: datetime(2026, 12, 24, 18, tzinfo=UTC)} == read_tokens(file)


@pytest.mark.parametrize(
    "text",
    ["secret\n", f"{ONE} tomorrow", f"{ONE} 2026-12-24T18:00:00", f"{ONE} a b", ONE.upper()],
)
def test_a_line_that_is_none_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)

    with pytest.raises(InvalidInput) as refused:
        read_tokens(file)

    assert "serving.tokens_unreadable" == refused.value.code
    assert "secret" not in refused.value.message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        TokensFile(tmp_path / "none")


def test_a_revocation_takes_effect_beside_a_line_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tokens"
    file.write_text(ONE)
    tokens = TokensFile(file)

    file.write_text(f"{ONE}\n{OTHER}\n")
    tokens.refresh()
    both = set(tokens.known)
    file.write_text(f"broken\n{OTHER}\n{ONE} yesterday\n")
    tokens.refresh()

    assert ({ONE, OTHER}, {OTHER}) == (both, set(tokens.known))
    assert "line 1" in capsys.readouterr().err


def test_without_its_file_nobody_may_ask(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(ONE)
    tokens = TokensFile(file)

    file.unlink()
    tokens.refresh()

    assert {} == tokens.known
