"""The stand-alone verifier finds each kind of tampering and names the entry."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everloop.kernel.ledger import bundle, verify_standalone
from everloop.kernel.ledger.verify_standalone import Report, UnusableBundle, main, verify_bundle
from tests.unit.kernel.ledger.sample import (
    CHECKPOINTS,
    DELETION,
    DENIED,
    ERASED,
    OTHER_KEY,
    OTHER_VKEY,
    SIZE,
    VKEY,
    SampleLedger,
    drop_line,
    edit_body,
    edit_lines,
    sample_ledger,
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_ledger().export(tmp_path_factory.mktemp("ledger") / "bundle")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    path = tmp_path / "anchor.txt"
    path.write_text(sample_ledger().head(SIZE), "utf-8")
    return path


def named(report: Report) -> set[tuple[str, int | None]]:
    return {(note.code, note.index) for note in report.findings}


def resign(folder: Path, ledger: SampleLedger, size: int) -> None:
    """Do what an operator with the key does: sign a new head and fit the manifest to it."""
    (folder / "checkpoint.txt").write_text(ledger.head(size), "utf-8")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["size"] = size
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def recount(folder: Path) -> None:
    """Fit the manifest's counts to the files, as a careful forger would."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    for name in ("entries", "payloads", "records"):
        lines = (folder / f"{name}.jsonl").read_bytes().count(b"\n")
        manifest["counts"][name] = lines
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


# --- entries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(SIZE))
def test_a_changed_body_is_named(folder: Path, number: int) -> None:
    edit_body(folder, number, '"ann"', '"anm"')

    report = verify_bundle(folder, VKEY)

    assert {("root.mismatch", None), ("entry.changed", number)} <= named(report)
    assert {index for _, index in named(report)} <= {None, number}
    assert report.first_bad_entry == number


def test_a_changed_body_is_narrowed_down_without_the_stored_leaves(folder: Path) -> None:
    (folder / "leaves.txt").unlink()
    edit_body(folder, 12, '"ann"', '"anm"')

    report = verify_bundle(folder, VKEY)

    assert ("entry.changed", 10) in named(report)
    between = [note.message for note in report.findings if note.code == "entry.changed"]
    assert len(between) == 1
    assert "from 10 to 15" in between[0]


def test_a_changed_body_with_its_leaf_hash_is_named_by_the_proven_part(folder: Path) -> None:
    edit_body(folder, 12, '"ann"', '"anm"')

    def spoil(lines: list[str]) -> None:
        lines[20] = "00" * 32

    edit_lines(folder / "leaves.txt", spoil)

    report = verify_bundle(folder, VKEY)

    assert {("entry.changed", 12), ("leaves.unproven", None)} <= named(report)


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("number", [0, 5, 16, SIZE - 2])
def test_a_deleted_entry_is_named(folder: Path, number: int, leaves: bool) -> None:
    if not leaves:
        (folder / "leaves.txt").unlink()
    for name in ("entries.jsonl", "payloads.jsonl"):
        drop_line(folder / name, number)
    recount(folder)

    report = verify_bundle(folder, VKEY)

    assert ("entry.deleted", number) in named(report)
    assert report.first_bad_entry == number


@pytest.mark.parametrize("leaves", [True, False])
def test_reordered_entries_are_named(folder: Path, leaves: bool) -> None:
    if not leaves:
        (folder / "leaves.txt").unlink()

    def swap(lines: list[str]) -> None:
        lines[5], lines[6] = lines[6], lines[5]

    edit_lines(folder / "entries.jsonl", swap)

    report = verify_bundle(folder, VKEY)

    assert ("entry.reordered", 5) in named(report)
    assert report.first_bad_entry == 5


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 16, SIZE - 1])
def test_truncation_under_the_old_head_is_named(folder: Path, kept: int, leaves: bool) -> None:
    if not leaves:
        (folder / "leaves.txt").unlink()

    def cut(lines: list[str]) -> None:
        del lines[kept:]

    edit_lines(folder / "entries.jsonl", cut)
    edit_lines(folder / "payloads.jsonl", cut)
    recount(folder)

    report = verify_bundle(folder, VKEY)

    assert ("entry.truncated", kept) in named(report)


def test_truncation_with_a_fresh_head_is_found_by_the_anchor_alone(
    tmp_path: Path, anchor: Path
) -> None:
    ledger = sample_ledger()
    del ledger.bodies[20:], ledger.payloads[20:]
    ledger.records["alias", "m0"] = '{"id":"m0","version":18}'
    ledger.records["alias", "m1"] = '{"id":"m1","version":19}'
    folder = ledger.export(tmp_path / "bundle")

    assert verify_bundle(folder, VKEY).ok
    report = verify_bundle(folder, VKEY, anchor)

    assert named(report) == {("anchor.truncated", 20)}


@pytest.mark.parametrize("leaves", [True, False])
def test_a_copied_entry_is_named(folder: Path, leaves: bool) -> None:
    if not leaves:
        (folder / "leaves.txt").unlink()
    edit_lines(folder / "entries.jsonl", lambda lines: lines.insert(9, lines[3]))

    report = verify_bundle(folder, VKEY)

    assert ("entry.inserted", 9) in named(report)


@pytest.mark.parametrize("leaves", [True, False])
def test_an_entry_after_the_head_is_named(folder: Path, leaves: bool) -> None:
    if not leaves:
        (folder / "leaves.txt").unlink()
    edit_lines(
        folder / "entries.jsonl",
        lambda lines: lines.append(
            lines[-1]
            .replace(f'"idx":{SIZE - 1}', f'"idx":{SIZE}')
            .replace(f'\\"idx\\":{SIZE - 1}', f'\\"idx\\":{SIZE}')
        ),
    )

    report = verify_bundle(folder, VKEY)

    assert ("entry.inserted", SIZE) in named(report)


def test_an_inserted_entry_with_all_later_ones_renumbered_is_named(folder: Path) -> None:
    def insert(lines: list[str]) -> None:
        bodies = [json.loads(json.loads(line)["body"]) for line in lines]
        bodies.insert(6, {**bodies[6], "actor": "mallory"})
        for number, body in enumerate(bodies):
            body["idx"] = number
        lines[:] = [
            json.dumps(
                {
                    "idx": number,
                    "body": json.dumps(
                        body, sort_keys=True, separators=(",", ":"), ensure_ascii=False
                    ),
                }
            )
            for number, body in enumerate(bodies)
        ]

    edit_lines(folder / "entries.jsonl", insert)

    report = verify_bundle(folder, VKEY)

    assert report.first_bad_entry == 6
    assert {("entry.changed", 6), ("entry.inserted", SIZE)} <= named(report)


def test_an_honestly_hashed_entry_with_a_wrong_number_is_named(tmp_path: Path) -> None:
    ledger = sample_ledger()
    ledger.bodies.append(ledger.bodies[-1])
    honest = SampleLedger(payloads=ledger.payloads, records=ledger.records)
    for body in ledger.bodies:
        honest.append_body(body)

    report = verify_bundle(honest.export(tmp_path / "bundle"), VKEY)

    assert ("entry.misnumbered", SIZE) in named(report)


def test_a_key_given_twice_in_a_body_is_refused(folder: Path) -> None:
    edit_body(folder, 4, '"actor":"ann"', '"actor":"ann","actor":"bob"')

    assert ("entry.malformed", 4) in named(verify_bundle(folder, VKEY))


def test_a_line_that_is_no_entry_is_named(folder: Path) -> None:
    def spoil(lines: list[str]) -> None:
        lines[8] = lines[8][:-20]

    edit_lines(folder / "entries.jsonl", spoil)

    assert {("entry.unreadable", 8), ("entry.changed", 8)} <= named(verify_bundle(folder, VKEY))


def test_a_line_labelled_with_another_number_than_its_body_is_named(folder: Path) -> None:
    def relabel(lines: list[str]) -> None:
        lines[8] = lines[8].replace('"idx":8', '"idx":9', 1)

    edit_lines(folder / "entries.jsonl", relabel)

    assert named(verify_bundle(folder, VKEY)) == {("entry.misnumbered", 8)}


def test_a_clock_that_goes_back_is_a_warning(tmp_path: Path) -> None:
    ledger = sample_ledger()
    late = SampleLedger(records=ledger.records)
    late.payloads = ledger.payloads
    for number, body in enumerate(ledger.bodies):
        changed = body.replace(b"2026", b"2027") if number == 3 else body
        late.append_body(changed)

    report = verify_bundle(late.export(tmp_path / "bundle"), VKEY)

    assert report.ok
    assert ("entry.time_went_back", 4) in {(note.code, note.index) for note in report.warnings}


def test_a_changed_leaf_in_the_store_is_named(folder: Path) -> None:
    def spoil(lines: list[str]) -> None:
        lines[11] = "00" * 32

    edit_lines(folder / "leaves.txt", spoil)

    assert named(verify_bundle(folder, VKEY)) == {("leaves.differ", 11)}


# --- heads, keys, anchors -----------------------------------------------------------------------


def test_a_rewrite_with_another_key_is_found_by_the_key(tmp_path: Path) -> None:
    folder = sample_ledger(OTHER_KEY, first_version=1).export(tmp_path / "bundle")

    assert verify_bundle(folder).ok
    report = verify_bundle(folder, VKEY)

    assert "checkpoint.invalid" in {note.code for note in report.findings}


def test_a_rewrite_with_another_key_is_found_by_the_anchor(tmp_path: Path, anchor: Path) -> None:
    folder = sample_ledger(OTHER_KEY, first_version=1).export(tmp_path / "bundle")

    report = verify_bundle(folder, anchor=anchor)

    assert {("anchor.other_key", None), ("anchor.mismatch", 0)} == named(report)


def test_a_rewrite_with_the_right_key_is_found_by_the_anchor(tmp_path: Path, anchor: Path) -> None:
    folder = sample_ledger(first_version=1).export(tmp_path / "bundle")

    assert verify_bundle(folder, VKEY).ok
    assert named(verify_bundle(folder, VKEY, anchor)) == {("anchor.mismatch", 0)}


def test_an_honest_bundle_fits_its_anchors(folder: Path, tmp_path: Path) -> None:
    anchors = tmp_path / "anchors.txt"
    heads = [sample_ledger().head(size) for size in (3, 11, SIZE)]
    anchors.write_text("--------\n".join(heads), "utf-8")

    report = verify_bundle(folder, VKEY, anchors)

    assert report.findings == []
    assert report.warnings == []
    assert report.figures["anchors"] == 3


def test_a_printed_anchor_without_its_signature_serves(folder: Path, tmp_path: Path) -> None:
    printed = tmp_path / "printed.txt"
    printed.write_text(sample_ledger().head(11).partition("\n\n")[0], "utf-8")
    assert verify_bundle(folder, VKEY, printed).ok

    edit_body(folder, 2, '"ann"', '"anm"')

    assert ("anchor.mismatch", 0) in named(verify_bundle(folder, VKEY, printed))


def test_without_a_key_the_report_says_what_that_is_worth(folder: Path) -> None:
    report = verify_bundle(folder)

    assert report.ok
    assert report.key_source == "manifest"
    assert "key.from_bundle" in {note.code for note in report.warnings}


def test_an_earlier_head_of_another_history_is_found(folder: Path) -> None:
    other = sample_ledger(first_version=1)
    heads = [other.head(size) for size in CHECKPOINTS]
    (folder / "checkpoints.txt").write_text("--------\n".join(heads), "utf-8")

    report = verify_bundle(folder, VKEY)

    codes = {note.code for note in report.findings}
    assert {"checkpoint.not_a_prefix", "proof.invalid"} <= codes


def test_a_changed_consistency_proof_is_found(folder: Path) -> None:
    path = folder / "consistency.json"
    proofs = json.loads(path.read_text("utf-8"))
    proofs["proofs"][1]["hashes"][0] = "00" * 32
    path.write_text(json.dumps(proofs), "utf-8")

    assert named(verify_bundle(folder, VKEY)) == {("proof.invalid", None)}


def test_an_old_key_in_the_manifest_opens_old_heads_only(folder: Path) -> None:
    old = sample_ledger(OTHER_KEY)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["earlier_vkeys"] = [OTHER_VKEY]
    path.write_text(json.dumps(manifest), "utf-8")
    heads = [old.head(size) for size in CHECKPOINTS]
    (folder / "checkpoints.txt").write_text("--------\n".join(heads), "utf-8")
    assert verify_bundle(folder, VKEY).ok

    (folder / "checkpoint.txt").write_text(old.head(SIZE), "utf-8")

    assert named(verify_bundle(folder, VKEY)) == {("checkpoint.invalid", None)}


@pytest.mark.parametrize("name", ["entries", "payloads", "records", "checkpoints"])
def test_a_wrong_count_in_the_manifest_is_found(folder: Path, name: str) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["counts"][name] += 1
    path.write_text(json.dumps(manifest), "utf-8")

    assert named(verify_bundle(folder, VKEY)) == {("manifest.counts", None)}


# --- payloads and records -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, DENIED, SIZE - 1])
def test_a_changed_payload_is_named(folder: Path, number: int) -> None:
    def change(lines: list[str]) -> None:
        lines[number] = lines[number].replace("gr\\u00f6", "gr\\u00e4")

    edit_lines(folder / "payloads.jsonl", change)

    assert named(verify_bundle(folder, VKEY)) == {("payload.changed", number)}


def test_a_payload_that_is_gone_without_an_erasure_is_named(folder: Path) -> None:
    drop_line(folder / "payloads.jsonl", DENIED)
    recount(folder)

    assert named(verify_bundle(folder, VKEY)) == {("payload.missing", DENIED)}


def test_a_second_payload_and_one_without_an_entry_are_named(folder: Path) -> None:
    edit_lines(
        folder / "payloads.jsonl",
        lambda lines: lines.extend([lines[2], '{"idx":99,"erased":true}']),
    )
    recount(folder)

    found = named(verify_bundle(folder, VKEY))

    assert found == {("payload.duplicate", 2), ("payload.no_entry", 99)}


def test_a_recorded_erasure_is_no_tampering(folder: Path) -> None:
    lines = (folder / "payloads.jsonl").read_text("utf-8").splitlines()
    assert json.loads(lines[ERASED]) == {"idx": ERASED, "erased": True}

    report = verify_bundle(folder, VKEY)

    assert report.ok
    assert report.figures["erased_payloads"] == 1
    assert "payload.erased_unrecorded" not in report.totals


def test_an_erasure_that_no_entry_records_excuses_nothing(folder: Path) -> None:
    def erase(lines: list[str]) -> None:
        lines[22] = '{"idx":22,"erased":true}'

    edit_lines(folder / "payloads.jsonl", erase)

    report = verify_bundle(folder, VKEY)

    assert ("payload.erased_unrecorded", 22) in {(n.code, n.index) for n in report.warnings}
    assert named(report) == {("record.changed", 19)}


def test_an_erasure_that_restates_the_changes_keeps_the_record_provable(tmp_path: Path) -> None:
    ledger = sample_ledger()
    ledger.erase(22)
    folder = ledger.export(tmp_path / "bundle")

    report = verify_bundle(folder, VKEY)
    edit_lines(
        folder / "records.jsonl",
        lambda lines: lines.__setitem__(1, lines[1].replace("22", "23")),
    )
    tampered = verify_bundle(folder, VKEY)

    assert report.findings == []
    assert report.figures["records_proven_by_the_log"] == 2
    assert named(tampered) == {("record.changed", 22)}


def test_only_earlier_entries_can_be_restated(tmp_path: Path) -> None:
    ledger = sample_ledger()
    ledger.append("payload.erase", restated=[{"entry": SIZE, "changes": []}])

    report = verify_bundle(ledger.export(tmp_path / "bundle"), VKEY)

    assert named(report) == {("payload.unreadable", SIZE)}


def test_a_changed_record_is_named_with_the_entry_that_wrote_it(folder: Path) -> None:
    edit_lines(
        folder / "records.jsonl",
        lambda lines: lines.__setitem__(0, lines[0].replace("21", "20")),
    )

    report = verify_bundle(folder, VKEY)

    assert named(report) == {("record.changed", 21)}
    assert report.findings[0].record == "alias:m0"


def test_a_record_removed_behind_the_log_is_named(folder: Path) -> None:
    drop_line(folder / "records.jsonl", 1)
    recount(folder)

    assert named(verify_bundle(folder, VKEY)) == {("record.missing", 22)}


def test_a_record_added_behind_the_log_is_named(folder: Path) -> None:
    row = json.dumps({"kind": "alias", "key": "new", "text": "{}"})
    edit_lines(folder / "records.jsonl", lambda lines: lines.append(row))
    recount(folder)

    report = verify_bundle(folder, VKEY)

    assert named(report) == {("record.unlogged", None)}
    assert report.findings[0].record == "alias:new"


def test_a_record_that_the_log_deleted_is_named(folder: Path) -> None:
    row = json.dumps({"kind": "alias", "key": "m2", "text": '{"id":"m2","version":14}'})
    edit_lines(folder / "records.jsonl", lambda lines: lines.append(row))
    recount(folder)

    assert named(verify_bundle(folder, VKEY)) == {("record.not_deleted", DELETION)}


def test_a_record_given_twice_is_named(folder: Path) -> None:
    edit_lines(folder / "records.jsonl", lambda lines: lines.append(lines[0]))
    recount(folder)

    assert named(verify_bundle(folder, VKEY)) == {("record.duplicate", None)}


# --- any byte, any input ------------------------------------------------------------------------

COVERED = ("entries.jsonl", "payloads.jsonl", "records.jsonl", "checkpoint.txt", "checkpoints.txt")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_changed_byte_passes_and_none_breaks_the_verifier(
    pristine: Path, tmp_path: Path, data: st.DataObject
) -> None:
    copy = Path(shutil.copytree(pristine, tmp_path / "bundle", dirs_exist_ok=True))
    path = copy / data.draw(st.sampled_from(COVERED))
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)

    assert not verify_bundle(copy, VKEY).ok


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FILES = (*COVERED, "manifest.json", "consistency.json", "leaves.txt")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(FILES),
    value=json_values | st.binary(),
    wrap=st.sampled_from(("", "entry", "payload", "change", "record", "proof", "manifest")),
)
def test_no_file_content_breaks_the_verifier(
    pristine: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    name: str,
    value: object,
    wrap: str,
) -> None:
    copy = Path(shutil.copytree(pristine, tmp_path / "bundle", dirs_exist_ok=True))
    content = value if isinstance(value, bytes) else hostile(value, wrap)
    (copy / name).write_bytes(content)

    exit_code = main([str(copy), "--vkey", VKEY])

    assert exit_code in (0, 1, 2)
    assert capsys.readouterr().out.isascii()


def hostile(value: object, wrap: str) -> bytes:
    """Return JSON in which one field, where a reader trusts most, holds the value."""
    shapes: dict[str, object] = {
        "": value,
        "entry": {"idx": value, "body": json.dumps({"idx": value, "ts": value, "v": 1})},
        "payload": {"idx": 0, "salt": value, "payload": value},
        "change": {"idx": 0, "salt": "", "payload": json.dumps({"changes": [value]})},
        "record": {"kind": "alias", "key": value, "text": value},
        "proof": {"proofs": [{"old": 4, "new": 10, "hashes": value}]},
        "manifest": {"format": verify_standalone.FORMAT, "vkey": value, "counts": value},
    }
    return json.dumps(shapes[wrap]).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"idx":' + b"9" * 5_000 + b',"body":"{}"}',
        b'{"idx":0,"body":"\\ud800"}',
        b'{"idx":1e999,"body":"{}"}',
        b"\xff\xfe",
        b"",
    ],
    ids=["deep", "long number", "surrogate", "infinity", "not UTF-8", "blank"],
)
@pytest.mark.parametrize("name", ["entries.jsonl", "payloads.jsonl", "records.jsonl"])
def test_a_hostile_line_is_found_not_fatal(folder: Path, name: str, line: bytes) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes() + line + b"\n")

    assert not verify_bundle(folder, VKEY).ok


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_said_plainly(folder: Path, name: str) -> None:
    (folder / name).unlink()

    if name in ("leaves.txt", "consistency.json"):
        assert verify_bundle(folder, VKEY).ok
    elif name == "checkpoints.txt":
        assert named(verify_bundle(folder, VKEY)) == {("manifest.counts", None)}
    else:
        with pytest.raises(UnusableBundle, match=name):
            verify_bundle(folder, VKEY)


def test_a_pipe_in_the_place_of_a_file_does_not_hang(folder: Path) -> None:
    (folder / "entries.jsonl").unlink()
    os.mkfifo(folder / "entries.jsonl")

    with pytest.raises(UnusableBundle, match="no regular file"):
        verify_bundle(folder, VKEY)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_zip_never_passes_as_another_ledger(
    pristine: Path, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "bundle.zip"
    if not path.exists():
        bundle.zip_bundle(pristine, path)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(content)

    try:
        report = verify_bundle(damaged, VKEY)
    except UnusableBundle:
        return
    honest = verify_bundle(pristine, VKEY)
    assert not report.ok or (report.size, report.root) == (honest.size, honest.root)


# --- the command line ---------------------------------------------------------------------------


def test_the_copied_file_runs_alone_and_imports_nothing_of_the_product(
    folder: Path, tmp_path: Path
) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-I",
            "-X",
            "importtime",
            str(folder / "verify.py"),
            str(folder),
            "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert run.returncode == 0
    assert json.loads(run.stdout)["ok"] is True
    assert "everloop" not in run.stderr


def test_the_verifier_imports_only_the_standard_library_and_cryptography() -> None:
    tree = ast.parse(bundle.verifier_source())
    imported = {
        (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }

    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names | {"cryptography"}


def test_exit_codes_and_texts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = main([str(folder), "--vkey", VKEY])
    assert honest == 0
    assert "OK: everything verifies." in capsys.readouterr().out

    edit_body(folder, 13, '"ann"', '"anm"')
    tampered = main([str(folder), "--vkey", VKEY])
    assert tampered == 1
    assert "The first entry at fault is 13." in capsys.readouterr().out

    unusable = main([str(tmp_path / "nothing"), "--json"])
    assert unusable == 2
    output = capsys.readouterr()
    assert json.loads(output.out)["ok"] is False
    assert output.err.startswith("UNUSABLE: ")


@pytest.mark.parametrize("vkey", ["", "nonsense", "a+b+c", VKEY + "=", "\ud800+00+00"])
def test_a_key_that_is_none_is_unusable_input(folder: Path, vkey: str) -> None:
    with pytest.raises(UnusableBundle, match="--vkey"):
        verify_bundle(folder, [vkey])


@pytest.mark.parametrize("text", [b"", b"\xff", b"a log\n1\n\n\xe2\x80\x94 a b\n", b"--------\n"])
def test_an_anchor_that_is_none_is_unusable_input(
    folder: Path, tmp_path: Path, text: bytes
) -> None:
    (tmp_path / "anchor").write_bytes(text)

    with pytest.raises(UnusableBundle, match="anchor"):
        verify_bundle(folder, VKEY, tmp_path / "anchor")


def test_hostile_names_reach_the_terminal_as_plain_ascii(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.dumps({"kind": "\x1b[2Jalias", "key": "k\n" * 500, "text": "{}"})
    edit_lines(folder / "records.jsonl", lambda lines: lines.append(row))

    main([str(folder), "--vkey", VKEY])

    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert output.isascii()


def test_many_findings_are_counted_and_the_first_of_them_named(folder: Path) -> None:
    rows = [json.dumps({"kind": "x", "key": str(i), "text": "{}"}) for i in range(500)]
    edit_lines(folder / "records.jsonl", lambda lines: lines.extend(rows))

    report = verify_bundle(folder, VKEY)

    assert report.totals["record.unlogged"] == 500
    assert sum(note.code == "record.unlogged" for note in report.findings) == 20
    assert "480 more [record.unlogged]" in report.to_text()
