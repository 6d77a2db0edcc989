"""An exported bundle verifies as it was written, from a folder and from a zip."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from everloop.core.errors import Conflict
from everloop.kernel.ledger import bundle
from everloop.kernel.ledger.verify_standalone import verify_bundle
from tests.unit.kernel.ledger.sample import SIZE, VKEY, SampleLedger, sample_ledger


def test_an_honest_bundle_verifies_and_counts_everything(tmp_path: Path) -> None:
    folder = sample_ledger().export(tmp_path / "bundle")

    report = verify_bundle(folder, VKEY)

    assert report.findings == []
    assert report.ok
    assert report.exit_code == 0
    assert [note.code for note in report.warnings] == ["anchor.none"]
    expected = {
        "entries": SIZE,
        "payloads": SIZE,
        "erased_payloads": 1,
        "state_changes": 19,
        "entries_with_state_changes": 19,
        "entries_without_state_changes": 5,
        "records": 2,
        "records_proven_by_the_log": 2,
        "earlier_checkpoints": 3,
    }
    assert expected == report.figures


def test_a_zip_verifies_like_its_folder_and_is_the_same_each_time(tmp_path: Path) -> None:
    folder = sample_ledger().export(tmp_path / "bundle")

    one = bundle.zip_bundle(folder, tmp_path / "one.zip")
    two = bundle.zip_bundle(folder, tmp_path / "two.zip")

    assert one.read_bytes() == two.read_bytes()
    assert verify_bundle(one, VKEY) == verify_bundle(folder, VKEY)


def test_an_empty_ledger_verifies(tmp_path: Path) -> None:
    folder = SampleLedger().export(tmp_path / "bundle", checkpoints=())

    assert verify_bundle(folder, VKEY).ok


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13])
def test_a_ledger_of_any_size_verifies(tmp_path: Path, size: int) -> None:
    ledger = SampleLedger()
    for number in range(size):
        ledger.write_alias("a", number)

    folder = ledger.export(tmp_path / "bundle", checkpoints=tuple(range(1, size)))

    assert verify_bundle(folder, VKEY).findings == []


def test_the_verifier_travels_with_the_bundle_and_the_manifest_has_its_digest(
    tmp_path: Path,
) -> None:
    folder = sample_ledger().export(tmp_path / "bundle")

    copied = (folder / "verify.py").read_bytes()

    assert copied == bundle.verifier_source()
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["verifier"] == "sha256:" + hashlib.sha256(copied).hexdigest()


def test_the_readme_says_what_is_not_proven(tmp_path: Path) -> None:
    text = (sample_ledger().export(tmp_path / "bundle") / "README.txt").read_text("utf-8")

    assert "not that it is true" in text
    assert "Truncation is detected only against an anchor" in text
    assert VKEY in text


def test_a_body_that_is_not_text_is_exported_and_found(tmp_path: Path) -> None:
    ledger = sample_ledger()
    damaged = ledger.bodies[5].replace(b"ann", b"a\xffn").decode("utf-8", "surrogateescape")
    folder = tmp_path / "bundle"
    bundle.write_bundle(
        folder,
        head=bundle.LogHead(
            origin="ledger.example.org",
            vkey=VKEY,
            created="",
            size=SIZE,
            checkpoint=ledger.head(SIZE),
        ),
        entries=[
            bundle.ExportedEntry(i, damaged if i == 5 else body.decode())
            for i, body in enumerate(ledger.bodies)
        ],
        payloads=ledger.payloads,
        records=[],
        leaves=[ledger.nodes[0, index] for index in range(SIZE)],
    )

    report = verify_bundle(folder, VKEY)

    assert report.first_bad_entry is not None
    assert ("entry.changed", 5) in {(note.code, note.index) for note in report.findings}


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "something").touch()

    with pytest.raises(Conflict):
        sample_ledger().export(tmp_path)


def test_a_zip_in_the_way_is_not_overwritten(tmp_path: Path) -> None:
    folder = sample_ledger().export(tmp_path / "bundle")
    (tmp_path / "taken.zip").touch()

    with pytest.raises(Conflict):
        bundle.zip_bundle(folder, tmp_path / "taken.zip")
