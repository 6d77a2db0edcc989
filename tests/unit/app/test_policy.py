"""What a server loads is its admin's file, and a file that can't be understood stops it."""

from __future__ import annotations

from pathlib import Path

import pytest

from everloop.app.home import Home
from everloop.app.policy import load_policy
from everloop.core.errors import InvalidInput
from everloop.kernel.safe_load import LoadPolicy


def test_without_a_file_only_the_safe_formats_are_loaded(tmp_path: Path) -> None:
    assert LoadPolicy() == load_policy(Home(tmp_path))
    assert "pyfunc" not in LoadPolicy().formats


def test_the_file_in_the_home_folder_counts(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("formats: [lightgbm, pyfunc]\n")

    assert LoadPolicy(formats=frozenset({"lightgbm", "pyfunc"})) == load_policy(Home(tmp_path))


def test_a_file_named_by_the_environment_comes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.yaml").write_text("formats: [lightgbm]\n")
    (tmp_path / "other.yaml").write_text("trusted_types: [sklearn.tree._tree.Tree]\n")
    monkeypatch.setenv("EVERLOOP_POLICY", str(tmp_path / "other.yaml"))

    assert ("sklearn.tree._tree.Tree",) == load_policy(Home(tmp_path)).trusted_types


@pytest.mark.parametrize(
    "text",
    [
        "formats: lightgbm\n",
        "format: [onnx]\n",
        "formats: [pickle]\n",
        "- [\n",
        "\x00",
        "!!python/object:os.system {}\n",
    ],
)
def test_a_file_that_can_not_be_understood_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(text)

    with pytest.raises(InvalidInput) as refused:
        load_policy(Home(tmp_path))

    assert "policy.invalid" == refused.value.code


def test_a_named_file_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERLOOP_POLICY", str(tmp_path / "gone.yaml"))

    with pytest.raises(InvalidInput):
        load_policy(Home(tmp_path))
