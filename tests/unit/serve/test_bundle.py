from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from everloop.core.canonical import canonical_json
from everloop.core.errors import EverloopError, IntegrityError, UnsafeArtifact
from everloop.kernel.signing import Ed25519Signer
from everloop.serve.bundle import GoldenAnswer, open_bundle, write_bundle
from tests.unit.serve.served import MODEL, ROW, Served, make_bundle, make_folder, shifted_model

Break = Callable[[Path], object]


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return make_folder(tmp_path)


def opened(served: Served, folder: str) -> str:
    """The code with which a bundle is refused, or that it opened."""
    try:
        open_bundle(served.folder / folder, served.signer.public_key)
    except EverloopError as error:
        return error.code
    return "opened"


def test_a_sealed_bundle_opens(served: Served) -> None:
    assert "opened" == opened(served, served.seal(1).bundle)


def replace_in(name: str, old: bytes, new: bytes) -> Break:
    def change(folder: Path) -> None:
        path = folder / name
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda folder: (folder / "model.txt").write_bytes(shifted_model(1.0)), "file_changed"),
        (lambda folder: (folder / "model.txt").unlink(), "unreadable"),
        (replace_in("bundle.json", b'"number":1', b'"number":2'), "signature"),
        (replace_in("bundle.json", b'"golden":[', b'"golden":[ '), "signature"),
        (lambda folder: (folder / "bundle.json").unlink(), "unreadable"),
        (lambda folder: (folder / "bundle.sig").write_text("00" * 64), "signature"),
        (lambda folder: (folder / "bundle.sig").write_text("zz"), "unreadable"),
        (lambda folder: (folder / "bundle.sig").write_bytes(b"\xff"), "unreadable"),
        (lambda folder: (folder / "bundle.sig").unlink(), "unreadable"),
    ],
)
def test_a_changed_bundle_is_refused(served: Served, change: Break, code: str) -> None:
    target = served.seal(1)
    change(served.folder / target.bundle)

    assert f"bundle.{code}" == opened(served, target.bundle)


def test_a_bundle_of_another_signer_is_refused(served: Served) -> None:
    target = Served(served.folder, Ed25519Signer("evaluator", b"\x01" * 32)).seal(1)

    assert "bundle.signature" == opened(served, target.bundle)


def test_a_model_that_answers_differently_here_is_refused(served: Served) -> None:
    target = served.seal(1, golden=(GoldenAnswer(inputs=ROW, expected=-3.0),))

    assert "bundle.golden" == opened(served, target.bundle)


def test_a_format_that_can_run_code_is_refused(served: Served) -> None:
    target = served.seal(1, format="pickle")

    with pytest.raises(UnsafeArtifact):
        open_bundle(served.folder / target.bundle, served.signer.public_key)


def test_a_model_with_other_inputs_than_its_signature_is_refused(served: Served) -> None:
    bundle = make_bundle(1)
    fewer = msgspec.structs.replace(bundle, inputs=bundle.inputs[:3], golden=())
    write_bundle(served.folder / "b", fewer, {"model.txt": MODEL}, served.signer)

    assert "bundle.unreadable" == opened(served, "b")


@pytest.mark.parametrize("name", ["../model.txt", "/etc/passwd", "a/../../model.txt"])
def test_a_file_name_cannot_lead_out_of_the_bundle(served: Served, name: str) -> None:
    target = served.seal(1)
    folder = served.folder / target.bundle
    text = canonical_json(msgspec.structs.replace(make_bundle(1), files={name: "blake3:00"}))
    (folder / "bundle.json").write_bytes(text)
    (folder / "bundle.sig").write_text(served.signer.sign(text).hex())

    assert "bundle.unreadable" == opened(served, target.bundle)


def test_a_link_in_place_of_the_model_is_refused(served: Served, tmp_path: Path) -> None:
    target = served.seal(1)
    model = served.folder / target.bundle / "model.txt"
    model.rename(tmp_path / "elsewhere.txt")
    model.symlink_to(tmp_path / "elsewhere.txt")

    assert "bundle.unreadable" == opened(served, target.bundle)


def test_writing_a_bundle_again_leaves_it_alone(served: Served) -> None:
    target = served.seal(1)
    before = (served.folder / target.bundle).stat().st_mtime_ns

    served.seal(1)

    assert before == (served.folder / target.bundle).stat().st_mtime_ns


def test_files_that_are_not_what_is_described_are_not_sealed(served: Served) -> None:
    with pytest.raises(IntegrityError):
        write_bundle(served.folder / "b", make_bundle(1), {"model.txt": b"tree"}, served.signer)

    assert not (served.folder / "b").exists()
