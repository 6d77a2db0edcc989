"""The whole ledger at once: its signed head, its verification, and its export for an auditor."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.digest import Digest
from everloop.core.errors import IntegrityError, InvalidInput, NotFound
from everloop.govern.audit import READ
from everloop.govern.model import AuditExport
from everloop.kernel.admin import get_project_id
from everloop.kernel.holdings import hold
from everloop.kernel.ledger.bundle import zip_bundle
from everloop.kernel.ledger.export import export_bundle, note_size
from everloop.kernel.ledger.indexing import find_index_problems
from everloop.kernel.ledger.proving import ledger_key, newest_checkpoint
from everloop.kernel.ledger.verify_standalone import (
    SEPARATOR,
    Report,
    UnusableBundle,
    verify_bundle,
)
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import Scope, query, verb

MOST_PROBLEMS = 100
ANCHOR_CHARS = 16_000_000
SIGNATURE_MARK = "— "


class ShowHead(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the newest checkpoint."""


class LedgerHead(Struct, frozen=True, kw_only=True):
    """The signed head of the ledger, worth keeping outside the operator's power.

    Attributes:
        note: The checkpoint as a signed note (C2SP tlog-checkpoint).
        size: Number of entries that it covers.
        vkey: Key that verifies it.
    """

    note: str
    size: int
    vkey: str


@query("audit.head", permission=READ)
def show_head(ask: ShowHead, view: View) -> LedgerHead:
    """Show the newest signed checkpoint and the key that verifies it.

    Raises:
        NotFound: ``ledger.checkpoint_missing`` for an empty ledger.
    """
    latest = newest_checkpoint(view.tx)
    if latest is None:
        raise NotFound(
            "ledger.checkpoint_missing", "The ledger has no checkpoint.", hint="Change something."
        )
    key = view.services.signers["ledger"].public_key
    return LedgerHead(
        note=latest.note, size=note_size(latest.note), vkey=ledger_key(latest.note, key)
    )


class VerifyLedger(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask to verify the whole ledger and all records.

    Attributes:
        anchor: Checkpoints that were kept outside the database, as text; without one, entries
            cut off the end cannot be seen.
    """

    anchor: Annotated[str, Meta(max_length=ANCHOR_CHARS)] | None = None


class LedgerVerdict(Struct, frozen=True, kw_only=True):
    """What a verification found.

    Attributes:
        first_bad_entry: Number of the lowest entry at fault.
        problems: Everything that does not verify, in words; at most 100.
        warnings: What an auditor should know, which is no proof of tampering.
        figures: How much was verified.
    """

    ok: bool
    entries: int
    root: str
    first_bad_entry: int | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    figures: dict[str, int]


@query("audit.verify", permission=READ, scope=Scope.INSTANCE)
def verify_ledger(ask: VerifyLedger, view: View) -> LedgerVerdict:
    """Verify every entry, payload, checkpoint and record, as an auditor would, on a fresh export.

    Raises:
        InvalidInput: ``audit.anchor_invalid``.
    """
    beside = list(find_index_problems(view.tx))
    try:
        report = _verify(ask, view)
    except IntegrityError as error:
        return _unusable((error.message, *beside))
    named = [f"{finding.message} [{finding.code}]" for finding in report.findings]
    more = [
        f"{total} findings in all [{code}]"
        for code, total in report.totals.items()
        if total > sum(finding.code == code for finding in (*report.findings, *report.warnings))
    ]
    problems = named + more + beside
    return LedgerVerdict(
        ok=not problems,
        entries=report.figures.get("entries", 0),
        root=report.root,
        first_bad_entry=report.first_bad_entry,
        problems=tuple(problems[:MOST_PROBLEMS]),
        warnings=tuple(f"{note.message} [{note.code}]" for note in report.warnings),
        figures=report.figures,
    )


def _verify(ask: VerifyLedger, view: View) -> Report:
    key = view.services.signers["ledger"].public_key
    with tempfile.TemporaryDirectory(prefix="everloop-audit-") as name:
        place = Path(name)
        folder = export_bundle(
            view.tx, place / "bundle", public_key=key, created=view.services.clock.now()
        )
        latest = newest_checkpoint(view.tx)
        assert latest is not None  # the export needs one
        anchor = None
        if ask.anchor is not None:
            anchor = place / "anchor.txt"
            anchor.write_text(f"{SEPARATOR}\n".join(split_notes(ask.anchor)), "utf-8")
        try:
            return verify_bundle(folder, ledger_key(latest.note, key), anchor)
        except UnusableBundle as error:
            if anchor is None:
                raise IntegrityError(
                    "ledger.unreadable",
                    f"The ledger cannot be verified: {error}.",
                    hint="Restore the store from a backup.",
                ) from error
            raise InvalidInput(
                "audit.anchor_invalid",
                f"The anchor cannot be used: {error}.",
                hint="Give checkpoints exactly as they were kept, with all their lines.",
            ) from error


def _unusable(problems: tuple[str, ...]) -> LedgerVerdict:
    return LedgerVerdict(
        ok=False, entries=0, root="", first_bad_entry=None, problems=problems[:MOST_PROBLEMS],
        warnings=(), figures={},
    )  # fmt: skip


def split_notes(text: str) -> list[str]:
    """Return the signed notes of a text, each once, whether separated or just one after another."""
    notes: dict[str, None] = {}
    lines: list[str] = []
    is_signed = False
    for line in text.splitlines():
        is_signature = line.startswith(SIGNATURE_MARK)
        if line == SEPARATOR or (is_signed and not is_signature):
            _close(lines, notes)
            lines, is_signed = [], False
        if line != SEPARATOR and (line or lines):
            lines.append(line)
        is_signed = is_signed or is_signature
    _close(lines, notes)
    return list(notes)


def _close(lines: list[str], notes: dict[str, None]) -> None:
    if any(lines):
        notes["\n".join(lines).rstrip("\n") + "\n"] = None


class ExportLedger(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for a bundle that an auditor verifies without this product.

    Attributes:
        project: Name of the project through which its bytes will be fetched, if they will be.
    """

    project: Annotated[str, Meta(max_length=100)] | None = None


class _Packed(Struct, frozen=True, kw_only=True):
    """A bundle that is stored already."""

    bundle: Digest
    size_bytes: int
    size: int


def _pack(ask: ExportLedger, desk: Desk) -> _Packed:
    del ask
    key = desk.services.signers["ledger"].public_key
    with tempfile.TemporaryDirectory(prefix="everloop-audit-") as name, desk.read() as view:
        place = Path(name)
        folder = export_bundle(
            view.tx, place / "bundle", public_key=key, created=desk.services.clock.now()
        )
        archive = zip_bundle(folder, place / "ledger.zip")
        return _Packed(
            bundle=desk.services.blobs.put_file(archive),
            size_bytes=archive.stat().st_size,
            size=note_size((folder / "checkpoint.txt").read_text("utf-8")),
        )


@verb("audit.export", permission="audit:admin", scope=Scope.INSTANCE, prepare=_pack)
def export_ledger(ask: ExportLedger, work: Work, packed: _Packed) -> AuditExport:
    """Export the whole ledger and its records as a zip with its own verifier; recorded itself.

    Raises:
        NotFound: ``project.not_found``.
    """
    if ask.project is not None:
        hold(work.tx, get_project_id(work, ask.project), packed.bundle)
    export = work.insert(
        AuditExport(
            id=work.new_id(),
            bundle=packed.bundle,
            size_bytes=packed.size_bytes,
            size=packed.size,
            who=work.caller.actor,
            at=work.now,
        )
    )
    work.touch(f"audit_export:{export.id}")
    return export
