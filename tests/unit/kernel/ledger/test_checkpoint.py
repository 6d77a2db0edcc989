"""Checkpoints and signed notes, against vectors that others published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import IntegrityError, InvalidInput
from everloop.kernel.ledger import checkpoint as cp

VECTORS = json.loads(
    (Path(__file__).parents[3] / "vectors" / "ledger" / "checkpoint.json").read_text("utf-8")
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
NAME = "ledger.example.org"
VKEY = cp.verifier_key(NAME, PUBLIC)
HEAD = cp.Checkpoint(origin="ledger.example.org/main", size=7, root=bytes(range(32)))
NOTE = cp.sign_checkpoint(HEAD, NAME, KEY.sign, PUBLIC)


@pytest.mark.parametrize("case", VECTORS["notes"], ids=lambda case: case["source"])
def test_notes_of_other_implementations_open(case: dict[str, str]) -> None:
    assert case["text"] == cp.open_note(case["note"], case["vkey"])


@pytest.mark.parametrize("case", VECTORS["signed"], ids=lambda case: case["source"])
def test_signing_gives_the_published_bytes(case: dict[str, str]) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["seed_hex"]))
    public = key.public_key().public_bytes_raw()

    assert case["vkey"] == cp.verifier_key(case["name"], public)
    assert case["note"] == cp.sign_note(case["text"], case["name"], key.sign, public)


@pytest.mark.parametrize("case", VECTORS["checkpoints"], ids=lambda case: case["source"])
def test_checkpoints_of_running_logs_open(case: dict[str, str | int]) -> None:
    opened = cp.open_checkpoint(str(case["note"]), str(case["vkey"]))

    expected = cp.Checkpoint(
        origin=str(case["origin"]),
        size=int(case["size"]),
        root=bytes.fromhex(str(case["root_hex"])),
    )
    assert expected == opened


def test_a_signed_checkpoint_opens_to_itself() -> None:
    assert cp.open_checkpoint(NOTE, VKEY) == HEAD


@given(size=st.integers(0, 10**18), root=st.binary(min_size=32, max_size=32))
def test_rendering_and_parsing_are_inverse(size: int, root: bytes) -> None:
    head = cp.Checkpoint("a log", size, root)

    assert head == cp.parse(cp.render(head))


def test_no_character_of_a_note_can_change_unseen() -> None:
    for position, character in enumerate(NOTE):
        changed = NOTE[:position] + ("A" if character != "A" else "B") + NOTE[position + 1 :]
        with pytest.raises(IntegrityError):
            cp.open_checkpoint(changed, VKEY)


def test_a_note_by_another_key_of_the_same_name_is_refused() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    forged = cp.sign_checkpoint(HEAD, NAME, other.sign, other.public_key().public_bytes_raw())

    with pytest.raises(IntegrityError) as refused:
        cp.open_checkpoint(forged, VKEY)
    assert refused.value.code == "ledger.note_not_signed"


def test_a_cosignature_by_a_witness_does_not_disturb() -> None:
    witness = "— witness.example " + "AAAAAQEBAQEBAQEB" + "\n"

    assert cp.open_checkpoint(NOTE + witness, VKEY) == HEAD


def test_a_second_and_bad_signature_under_our_key_is_refused() -> None:
    line = NOTE.split("\n")[-2]
    bad = line[:-6] + ("AAAA" if line[-6:-2] != "AAAA" else "BBBB") + line[-2:]

    with pytest.raises(IntegrityError) as refused:
        cp.open_checkpoint(NOTE + bad + "\n", VKEY)
    assert refused.value.code == "ledger.signature_invalid"


def test_a_signer_of_another_key_is_found_before_its_note_leaves() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))

    with pytest.raises(IntegrityError) as refused:
        cp.sign_checkpoint(HEAD, NAME, other.sign, PUBLIC)
    assert refused.value.code == "ledger.signer_mismatch"


def test_extension_lines_are_signed_but_do_not_change_the_checkpoint() -> None:
    note = cp.sign_note(cp.render(HEAD) + "an extension\n", NAME, KEY.sign, PUBLIC)

    assert cp.open_checkpoint(note, VKEY) == HEAD


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a log\n",
        "a log\n1\n",
        "\n1\n" + "A" * 43 + "=\n",
        "a log\n01\n" + "A" * 43 + "=\n",
        "a log\n-1\n" + "A" * 43 + "=\n",
        "a log\n١\n" + "A" * 43 + "=\n",
        "a log\n" + "9" * 5000 + "\n" + "A" * 43 + "=\n",
        "a log\n1\nAAAA\n",
        "a log\n1\n" + "A" * 43 + "=",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError) as refused:
        cp.parse(text)
    assert refused.value.code == "ledger.checkpoint_malformed"


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+00000000+AAAA",
        VKEY.replace("+", "-", 1),
        VKEY[:-4],
        "x" + VKEY,
        VKEY + "=",
    ],
)
def test_a_malformed_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        cp.open_note(NOTE, vkey)
    assert refused.value.code == "ledger.key_invalid"


@pytest.mark.parametrize(
    "head",
    [
        cp.Checkpoint("", 1, bytes(32)),
        cp.Checkpoint("two\nlines", 1, bytes(32)),
        cp.Checkpoint("a log", -1, bytes(32)),
        cp.Checkpoint("a log", 1, bytes(31)),
    ],
)
def test_a_checkpoint_that_does_not_fit_its_lines_is_not_signed(head: cp.Checkpoint) -> None:
    with pytest.raises(InvalidInput):
        cp.sign_checkpoint(head, NAME, KEY.sign, PUBLIC)


@pytest.mark.parametrize("name", ["", "two words", "plus+sign", "line\n", "nul\0"])
def test_a_key_name_that_does_not_fit_a_note_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        cp.verifier_key(name, PUBLIC)


@given(st.text())
def test_no_text_opens_by_chance_or_breaks_the_parser(text: str) -> None:
    with pytest.raises(IntegrityError):
        cp.open_checkpoint(text, VKEY)


@given(st.text())
def test_no_text_breaks_the_key_parser(text: str) -> None:
    with pytest.raises(InvalidInput):
        cp.open_note(NOTE, text)
