"""The published vectors, which any other verifier of our bundles can test itself against."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from everloop.core import merkle
from everloop.kernel.ledger.verify_standalone import verify_bundle

FOLDER = Path(__file__).parents[3] / "vectors" / "ledger"
ENTRIES = json.loads((FOLDER / "entry.json").read_text("utf-8"))
BUNDLE = json.loads((FOLDER / "bundle.json").read_text("utf-8"))


@pytest.mark.parametrize("case", ENTRIES["entries"], ids=lambda case: case["what"])
def test_an_entry_hashes_to_its_published_leaf(case: dict[str, str]) -> None:
    assert case["leaf_hash_hex"] == merkle.leaf_hash(case["body"].encode()).hex()


@pytest.mark.parametrize("case", ENTRIES["payloads"], ids=lambda case: case["what"])
def test_a_payload_has_its_published_digest(case: dict[str, str]) -> None:
    data = bytes.fromhex(case["salt_hex"]) + case["payload"].encode()

    assert case["payload_digest"] == "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("case", BUNDLE["cases"], ids=lambda case: case["what"])
def test_the_published_bundle_gives_the_published_verdicts(
    case: dict[str, object], tmp_path: Path
) -> None:
    replaced = case["replaced_files"]
    assert isinstance(replaced, dict)
    for name, text in {**BUNDLE["files"], **replaced}.items():
        (tmp_path / name).write_text(text, "utf-8", newline="\n")

    report = verify_bundle(tmp_path, BUNDLE["vkey"])

    assert case["ok"] == report.ok
    assert case["first_bad_entry"] == report.first_bad_entry
    assert case["codes"] == sorted({note.code for note in report.findings})
