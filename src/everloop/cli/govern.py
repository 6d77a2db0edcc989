"""``everloop lineage``, ``card`` and ``audit``: where things come from, and what proves it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup, make_command
from everloop.cli.session import Session
from everloop.core.errors import Conflict, InvalidInput, Unavailable

EXIT_INTEGRITY = 7
MOST_ANCHOR_BYTES = 15_000_000


def _show_lineage(answer: Any) -> None:
    marks = {True: "verified", False: "DOES NOT VERIFY", None: "-"}
    output.write_table(
        ("thing", "what", "digest", "bytes", "ledger"),
        [
            (node.ref, node.title, node.digest, marks[node.verified], list(node.entries))
            for node in answer.nodes
        ],
    )
    output.write("")
    for link in answer.edges:
        output.write_clean(f"{link.source} -{link.relation}-> {link.target}")
    for consent in answer.consents:
        output.write_clean(f"{consent.kind} by {consent.by}: {consent.words}")
    for problem in answer.broken:
        output.write_clean(f"BROKEN: {problem}")
    if answer.truncated:
        output.write("There is more; raise --limit or --depth.")


def _show_proof(answer: Any) -> None:
    output.write_clean(answer.body)
    state = "verifies" if answer.verified else f"DOES NOT VERIFY: {answer.problem}"
    output.write_clean(f"Entry {answer.index} of {answer.size} {state}.")
    output.write_clean(f"leaf {answer.leaf}")
    for part in answer.path:
        output.write_clean(f"  {part}")
    output.write_clean(f"root {answer.root}")


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path, exists=True), required=False)
@click.option(
    "--anchor",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File of checkpoints kept elsewhere; the home folder's own when left out.",
)
@click.option("--vkey", "key", help="The log's verifier key, from a source outside the bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def verify(
    session: Session, bundle: Path | None, anchor: Path | None, key: str | None, as_json: bool
) -> int:
    """Verify the live ledger and all records, or a BUNDLE that was exported.

    The same verification stands in one file that needs nothing of Everloop; it is in every bundle.
    """
    if bundle is not None:
        return _verify_bundle(bundle, anchor, key, as_json=as_json)
    from everloop.govern.exporting import LedgerVerdict, VerifyLedger

    client = session.client
    if anchor is None and client.home is not None and client.home.anchor.exists():
        anchor = client.home.anchor
    ask = VerifyLedger(anchor=None if anchor is None else _read_end(anchor))
    verdict = client.perform("audit.verify", ask, LedgerVerdict)
    if as_json:
        output.write_json(verdict)
    else:
        _say(verdict.ok, verdict.entries, verdict.problems, verdict.warnings)
        if verdict.first_bad_entry is not None:
            output.write(f"The first entry at fault is {verdict.first_bad_entry}.")
    return 0 if verdict.ok else EXIT_INTEGRITY


def _verify_bundle(bundle: Path, anchor: Path | None, key: str | None, *, as_json: bool) -> int:
    from everloop.kernel.ledger.verify_standalone import UnusableBundle, verify_bundle

    try:
        report = verify_bundle(bundle, key, anchor)
    except UnusableBundle as error:
        raise InvalidInput(
            "audit.bundle_unusable",
            f"{error}."[:500],
            hint="Give a bundle made by `everloop audit export`.",
        ) from error
    if as_json:
        output.write_json(
            {
                "ok": report.ok,
                "entries": report.size,
                "root": report.root,
                "first_bad_entry": report.first_bad_entry,
                "problems": report.findings,
                "warnings": report.warnings,
            }
        )
    else:
        problems = [finding.message for finding in report.findings]
        _say(report.ok, report.size, problems, [item.message for item in report.warnings])
        if report.first_bad_entry is not None:
            output.write(f"The first entry at fault is {report.first_bad_entry}.")
    return 0 if report.ok else EXIT_INTEGRITY


def _say(ok: bool, entries: int, problems: Any, warnings: Any) -> None:
    for problem in problems:
        output.write_clean(f"BAD: {problem}")
    for warning in warnings:
        output.write_clean(f"note: {warning}")
    output.write(f"{entries:,} entries: {'everything verifies' if ok else 'TAMPERED WITH'}.")


def _read_end(path: Path) -> str:
    """Return the end of a file of checkpoints; its newest ones say most."""
    from everloop.app.wiring import ORIGIN

    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MOST_ANCHOR_BYTES))
        text = file.read().decode("utf-8", "replace")
    is_whole = path.stat().st_size <= MOST_ANCHOR_BYTES
    return text if is_whole else text[text.find(f"\n{ORIGIN}\n") + 1 :]


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def export(session: Session, file: Path, force: bool, reason: str | None, as_json: bool) -> int:
    """Write the whole ledger with its proofs and a stand-alone verifier into a zip FILE."""
    from everloop.govern.exporting import ExportLedger
    from everloop.govern.model import AuditExport

    if file.exists() and not force:
        raise Conflict(
            "file.exists", f"{file.name} is there already.", hint="Use --force, or another name."
        )
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK) or file.is_dir():
        raise InvalidInput(
            "file.unwritable",
            f"{str(file)[:200]} can't be written: there is no such folder, or it is read-only.",
            hint="Choose another place.",
        )
    ask = ExportLedger(project=session.client.project)
    made = session.perform("audit.export", ask, AuditExport, reason=reason)
    draft = file.with_name(f".{file.name}.part")
    try:
        with draft.open("wb") as stream:
            for piece in session.client.blobs.stream(made.bundle):
                stream.write(piece)
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise Unavailable(
            "file.unwritable",
            f"{str(file)[:200]} could not be written: {error.strerror}.",
            hint="Make room, or choose another place.",
        ) from error
    if as_json:
        output.write_json(made)
    else:
        output.write_clean(f"{file}: {made.size:,} entries, {made.size_bytes:,} bytes")
    return 0


def _show_head(answer: Any) -> None:
    output.write_clean(answer.note)


def _show_card(answer: Any) -> None:
    output.write_clean(answer.markdown)


AUDIT = VerbGroup(
    "audit",
    BoundGroup(
        help="The ledger: every change, in an order that nobody can alter unseen.",
        bound={
            "list": Bound(
                "audit.list",
                columns=(
                    "index",
                    "at",
                    "actor=actor_name",
                    "action",
                    "resource",
                    "outcome",
                    "reason",
                ),
            ),
            "proof": Bound("audit.show", arguments=("index",), show=_show_proof),
            "head": Bound("audit.head", show=_show_head),
            "erase": Bound(
                "payload.erase",
                arguments=("entries",),
                confirm="Erase for good what entries {entries} say?",
            ),
        },
        written={"verify": verify, "export": export},
    ),
)
LINEAGE = Bound("lineage.show", arguments=("ref",), show=_show_lineage)
CARD = Bound("card.show", arguments=("ref",), show=_show_card)


class _Commands(dict[str, click.Command]):
    """Makes the single commands when they are asked for, since they need the verbs."""

    def __missing__(self, name: str) -> click.Command:
        return make_command(name, {"lineage": LINEAGE, "card": CARD}[name])


COMMANDS = _Commands(audit=AUDIT)
