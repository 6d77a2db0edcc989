"""What an auditor does: list, look at one entry, verify all, export, and live with erasures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from everloop.core.errors import Conflict, Denied, InvalidInput, NotFound
from everloop.govern.audit import EntryList, EntryView, ListEntries, ShowEntry
from everloop.govern.erasing import ErasePayloads, Erasure
from everloop.govern.exporting import (
    ExportLedger,
    LedgerHead,
    LedgerVerdict,
    ShowHead,
    VerifyLedger,
)
from everloop.govern.lineage import ShowLineage
from everloop.govern.model import AuditExport, EntryLine, Lineage
from everloop.kernel import admin
from everloop.kernel.authz import Role
from everloop.kernel.ledger import log
from everloop.registry.model import AliasMove, ModelVersion
from everloop.registry.queries import ResolveModel
from everloop.registry.verbs import MoveAlias
from tests.story.governed import Tale, tell


@pytest.fixture
def tale(tmp_path: Path) -> Iterator[Tale]:
    told = tell(tmp_path / "everloop.db", segments=2)
    yield told
    told.world.kernel.store.close()


def entries(tale: Tale, **wanted: object) -> tuple[EntryLine, ...]:
    ask = msgspec.convert(wanted, ListEntries)
    return tale.owner.perform("audit.list", ask, EntryList).items


def verify(tale: Tale, anchor: str | None = None) -> LedgerVerdict:
    return tale.owner.perform("audit.verify", VerifyLedger(anchor=anchor), LedgerVerdict)


def test_the_untouched_ledger_verifies(tale: Tale) -> None:
    head = tale.owner.perform("audit.head", ShowHead(), LedgerHead)

    found = verify(tale, head.note)

    assert found.ok, found.problems
    assert () == found.warnings
    assert head.size == found.entries == found.figures["entries"]
    assert found.figures["records"] == found.figures["records_proven_by_the_log"]


def test_entries_are_listed_newest_first_and_in_pages(tale: Tale) -> None:
    everything = entries(tale)
    first = tale.owner.perform("audit.list", ListEntries(limit=3), EntryList)
    second = tale.owner.perform("audit.list", ListEntries(limit=3, after=first.next), EntryList)

    assert [line.index for line in everything] == sorted(
        (line.index for line in everything), reverse=True
    )
    assert everything[:6] == first.items + second.items


def test_routine_is_left_out_but_where_it_was_refused(tale: Tale) -> None:
    shown = entries(tale)
    quiet = ("gate.approve", "prediction.seal")
    refused = [line for line in shown if line.outcome != "ok"]

    kept = entries(tale, without=quiet)

    assert [line for line in shown if line.action not in quiet or line.outcome != "ok"] == list(
        kept
    )
    assert len(kept) < len(shown)
    other = {line.action for line in refused}
    assert refused == [line for line in entries(tale, without=sorted(other)) if line in refused]
    first = tale.owner.perform("audit.list", ListEntries(limit=3, without=quiet), EntryList)
    second = tale.owner.perform(
        "audit.list", ListEntries(limit=3, without=quiet, after=first.next), EntryList
    )
    assert kept[:6] == first.items + second.items


def test_entries_are_found_by_what_they_did_who_did_it_and_what_they_name(tale: Tale) -> None:
    model = f"model_version:{tale.version.id}"

    assert {"gate.approve"} == {line.action for line in entries(tale, action="gate.approve")}
    assert {"ann"} == {line.actor_name for line in entries(tale, actor="ann")}
    touched = [line.action for line in entries(tale, resource=model)]
    assert ["release.start", "gate.approve", "gate.evaluate", "model.register"] == touched
    assert entries(tale, resource="model:m@production") == entries(tale, resource=model)
    assert ("gate.approve",) == tuple(
        line.action for line in entries(tale, resource=model, actor="ann")
    )
    assert () == entries(tale, resource="model_version:none")
    newest = entries(tale)[0].index
    assert [newest] == [line.index for line in entries(tale, since=newest)]


def test_a_denied_attempt_is_listed_with_its_outcome(tale: Tale) -> None:
    viewer = tale.world.person("vera", Role.VIEWER)
    with pytest.raises(Denied):
        viewer.perform(
            "model.alias", MoveAlias(model="m", alias="mine", version="1", why="x"), AliasMove
        )

    (denied,) = entries(tale, outcome="denied")

    assert ("vera", "model.alias") == (denied.actor_name, denied.action)


def test_only_roles_on_the_instance_see_what_concerns_all_of_it(tale: Tale) -> None:
    viewer = tale.world.person("vera", Role.VIEWER)
    whole = ListEntries(whole=True)

    assert "" not in {line.project for line in entries(tale)}
    assert "actor.create" in {
        line.action for line in tale.owner.perform("audit.list", whole, EntryList).items
    }
    with pytest.raises(Denied):
        viewer.perform("audit.list", whole, EntryList)
    with pytest.raises(Denied):
        viewer.perform("audit.show", ShowEntry(index=0), EntryView)
    with pytest.raises(Denied):
        viewer.perform("audit.verify", VerifyLedger(), LedgerVerdict)


def test_another_projects_entry_is_not_shown(tale: Tale) -> None:
    tale.world.project("other")
    stranger = tale.world.person("eve", Role.VIEWER, project="other")

    with pytest.raises(NotFound):
        stranger.perform("audit.show", ShowEntry(index=entries(tale)[0].index), EntryView)


def test_an_entry_is_shown_with_its_payload_and_its_proof(tale: Tale) -> None:
    (line,) = entries(tale, action="gate.approve")

    shown = tale.owner.perform("audit.show", ShowEntry(index=line.index), EntryView)

    assert shown.verified, shown.problem
    assert "ok" == json.loads(shown.payload or "")["input"]["comment"]
    assert shown.size == tale.owner.perform("audit.head", ShowHead(), LedgerHead).size
    assert shown.path
    assert shown.checkpoint.startswith("everloop.test/ledger\n")


@pytest.mark.parametrize("text", ["x", "-1", "1e3", "²"])
def test_a_bad_cursor_is_refused(tale: Tale, text: str) -> None:
    with pytest.raises(InvalidInput):
        entries(tale, after=text)


def test_an_export_verifies_without_the_product(tale: Tale, tmp_path: Path) -> None:
    export = tale.owner.perform(
        "audit.export", ExportLedger(project=tale.owner.project), AuditExport
    )
    head = tale.owner.perform("audit.head", ShowHead(), LedgerHead)
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(tale.world.blobs.get(export.bundle))
    verifier = Path(log.__file__).with_name("verify_standalone.py")
    command = [sys.executable, "-I", str(verifier), str(bundle), "--vkey", head.vkey]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert f"{export.size} entries" in done.stdout
    assert head.size == export.size + 1  # the export is an entry itself
    assert (
        "audit.export"
        == tale.owner.perform("audit.list", ListEntries(whole=True), EntryList).items[0].action
    )


def test_only_an_admin_exports_and_erases(tale: Tale) -> None:
    releaser = tale.world.person("rob", Role.RELEASER, project="*")

    with pytest.raises(Denied):
        releaser.perform("audit.export", ExportLedger(), AuditExport)
    with pytest.raises(Denied):
        releaser.perform("payload.erase", ErasePayloads(entries=(1,), ground="request 7"), Erasure)


def erase(tale: Tale, *numbers: int) -> Erasure:
    ask = ErasePayloads(entries=numbers, ground="request 7")
    return tale.owner.perform("payload.erase", ask, Erasure)


def test_an_erased_payload_is_gone_and_everything_still_verifies(tale: Tale) -> None:
    (line,) = entries(tale, action="gate.approve")
    before = len(entries(tale, whole=True))

    done = erase(tale, line.index)

    assert (line.index,) == done.erased
    shown = tale.owner.perform("audit.show", ShowEntry(index=line.index), EntryView)
    assert shown.payload is None
    assert shown.verified
    found = verify(tale)
    assert found.ok, found.problems
    assert not [text for text in found.warnings if "erased" in text]
    assert 1 == found.figures["erased_payloads"]
    assert before + 1 == len(entries(tale, whole=True))


def test_no_file_of_the_database_holds_an_erased_text(tale: Tale) -> None:
    secret = "Mrs-Unmistakable-Name"
    ask = admin.Configure(document={"models": {}})
    tale.owner.perform("project.configure", ask, admin.ConfigurationView, reason=secret)
    files = sorted(tale.path.parent.glob("everloop.db*"))
    assert secret.encode() in b"".join(path.read_bytes() for path in files)

    erase(tale, entries(tale)[0].index)

    assert secret.encode() not in b"".join(path.read_bytes() for path in files)


def test_records_of_an_erased_entry_can_still_be_proven(tale: Tale) -> None:
    (registered,) = entries(tale, action="model.register")
    erase(tale, registered.index)
    (erasure,) = entries(tale, action="payload.erase", whole=True)
    erase(tale, erasure.index)

    found = tale.owner.perform("lineage.show", ShowLineage(ref="model:m"), Lineage)

    assert () == found.broken
    assert found.nodes[0].verified
    assert verify(tale).ok


def test_erasing_again_changes_nothing(tale: Tale) -> None:
    (line,) = entries(tale, action="gate.approve")
    erase(tale, line.index)
    size = len(entries(tale, whole=True))

    assert () == erase(tale, line.index).erased
    assert size == len(entries(tale, whole=True))


def test_an_entry_that_is_not_there_cannot_be_erased(tale: Tale) -> None:
    with pytest.raises(NotFound):
        erase(tale, 10_000)


def test_a_repeated_call_whose_answer_was_erased_is_refused(tale: Tale) -> None:
    ask = admin.Configure(document={"models": {}})
    tale.owner.perform("project.configure", ask, admin.ConfigurationView, request="once")
    erase(tale, entries(tale)[0].index)

    with pytest.raises(Conflict) as refused:
        tale.owner.perform("project.configure", ask, admin.ConfigurationView, request="once")

    assert "request.reused" == refused.value.code


def test_each_committed_change_is_one_entry_and_each_row_its_last_word(tale: Tale) -> None:
    heard: list[int] = []
    tale.world.kernel.subscribe(lambda event: heard.append(event.ledger_index))
    before = len(entries(tale, whole=True, limit=1000))
    for number in range(20):
        ask = MoveAlias(model="m", alias="mine", version="1" if number % 2 else None, why="x")
        tale.owner.perform("model.alias", ask, AliasMove)
        tale.owner.perform("model.resolve", ResolveModel(ref="m"), ModelVersion)

    after = len(entries(tale, whole=True, limit=1000))
    assert list(range(before, after)) == heard
    found = verify(tale)
    assert found.figures["entries_with_state_changes"] == after
    assert found.figures["records"] == found.figures["records_proven_by_the_log"]


def test_the_ledger_of_an_instance_names_its_first_actors(tale: Tale) -> None:
    shown = tale.owner.perform("audit.show", ShowEntry(index=0), EntryView)

    changes = json.loads(shown.payload or "")["changes"]
    assert "actor" in {change["kind"] for change in changes}
