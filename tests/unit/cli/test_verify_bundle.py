"""``everloop models verify-bundle``: what a server would say of a bundle, before it has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everloop.cli.main import main
from tests.unit.serve.served import Served, make_folder, shifted_model


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return make_folder(tmp_path)


def verify(served: Served, *options: str) -> int:
    folder = served.folder / served.seal(1).bundle
    return main(["models", "verify-bundle", str(folder), *options])


def test_a_sound_bundle_is_told_with_the_key_that_sealed_it(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == verify(served)

    told = capsys.readouterr().out
    assert "demand@1.1.0" in told
    assert f"{served.signer.public_key.hex()} (as it says itself" in told


def test_its_description_comes_as_json(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == verify(served, "--json", "--key", served.signer.public_key.hex())

    assert 1 == json.loads(capsys.readouterr().out)["number"]


@pytest.mark.parametrize(
    ("key", "why"), [("00" * 32, "not signed by the expected key"), ("zz", "no public key")]
)
def test_another_key_is_refused(
    served: Served, capsys: pytest.CaptureFixture[str], key: str, why: str
) -> None:
    assert 0 != verify(served, "--key", key)

    assert why in capsys.readouterr().err


def test_a_changed_model_is_refused(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    folder = served.folder / served.seal(1).bundle
    (folder / "model.txt").write_bytes(shifted_model(1.0))

    assert 0 != main(["models", "verify-bundle", str(folder)])
    assert "not what was sealed: model.txt" in capsys.readouterr().err
