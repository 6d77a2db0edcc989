"""Somebody with the database file changes it behind the product's back; each change is named."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from everloop.app.verbs import load_verbs
from everloop.core.errors import IntegrityError
from everloop.core.records import declared_kinds
from everloop.govern.exporting import LedgerVerdict, VerifyLedger
from everloop.govern.lineage import ShowLineage
from everloop.govern.model import Lineage
from everloop.kernel.ledger import log
from everloop.registry.model import AliasMove
from everloop.registry.verbs import MoveAlias
from everloop.storage.sqlite import SqliteMetadataStore
from tests.kit import World, world
from tests.story.governed import Tale, tell

load_verbs()
MOVES = 50
Tamper = Callable[[sqlite3.Connection], object]


class Crime:
    """A database told once, copied for each crime, with the anchors kept elsewhere."""

    def __init__(self, tale: Tale, folder: Path, anchors: list[str]) -> None:
        self.tale = tale
        self.folder = folder
        self.anchors = anchors
        self.copies = 0

    def commit(self, tamper: Tamper) -> World:
        """Open a copy after somebody changed it."""
        self.copies += 1
        path = self.folder / f"copy{self.copies}.db"
        shutil.copy(self.tale.path, path)
        connection = sqlite3.connect(path)
        tamper(connection)
        connection.commit()
        connection.close()
        store = SqliteMetadataStore(path, declared_kinds())
        return world(store, self.tale.world.whole)

    def verdict(self, tamper: Tamper, *, anchored: bool = False) -> LedgerVerdict:
        robbed = self.commit(tamper)
        anchor = "".join(self.anchors) if anchored else None
        try:
            return robbed.owner.perform("audit.verify", VerifyLedger(anchor=anchor), LedgerVerdict)
        finally:
            robbed.kernel.store.close()


@pytest.fixture(scope="module")
def crime(tmp_path_factory: pytest.TempPathFactory) -> Crime:
    folder = tmp_path_factory.mktemp("crime")
    tale = tell(folder / "everloop.db")
    anchors: list[str] = []
    store = tale.world.kernel.store

    def keep(_: object) -> None:
        with store.read() as tx:
            latest = tx.find(log.LedgerCheckpoint, log.LATEST)
            assert latest is not None
            anchors.append(latest.note)

    tale.world.kernel.subscribe(keep)
    for number in range(MOVES):
        ask = MoveAlias(model="m", alias="mine", version=None if number % 2 else "1", why="x")
        tale.owner.perform("model.alias", ask, AliasMove, reason=f"move {number}")
    store.close()
    connection = sqlite3.connect(folder / "everloop.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return Crime(tale, folder, anchors)


def one(connection: sqlite3.Connection, text: str, *values: object) -> str:
    return str(connection.execute(text, values).fetchone()[0])


def entry_of(crime: Crime, action: str) -> int:
    connection = sqlite3.connect(crime.tale.path)
    try:
        text = 'SELECT "index" FROM ledger_entry WHERE action = ? ORDER BY "index" LIMIT 1'
        return int(one(connection, text, action))
    finally:
        connection.close()


def size(crime: Crime) -> int:
    connection = sqlite3.connect(crime.tale.path)
    try:
        return int(one(connection, "SELECT count(*) FROM ledger_entry"))
    finally:
        connection.close()


def test_the_untouched_copy_verifies_with_all_anchors(crime: Crime) -> None:
    found = crime.verdict(lambda _: None, anchored=True)

    assert found.ok, found.problems
    assert found.entries >= 60
    assert MOVES == found.figures["anchors"]


@pytest.mark.parametrize("index", [0, 7, 30, 63, 64])
def test_one_byte_of_an_entry_is_found_and_the_entry_named(crime: Crime, index: int) -> None:
    def change(connection: sqlite3.Connection) -> None:
        body = json.loads(one(connection, f'SELECT body FROM ledger_entry WHERE "index" = {index}'))
        last = body["request_id"][-1]
        body["request_id"] = body["request_id"][:-1] + ("0" if last != "0" else "1")
        text = json.dumps(body, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        connection.execute('UPDATE ledger_entry SET body = ? WHERE "index" = ?', (text, index))

    found = crime.verdict(change)

    assert not found.ok
    assert index == found.first_bad_entry
    assert any(f"Entry {index} was changed" in text for text in found.problems)


def test_a_body_and_its_leaf_changed_together_are_found(crime: Crime) -> None:
    def change(connection: sqlite3.Connection) -> None:
        from everloop.core.merkle import leaf_hash

        body = one(connection, 'SELECT body FROM ledger_entry WHERE "index" = 5')
        forged = body.replace('"outcome":"ok"', '"outcome":"denied"')
        assert forged != body
        connection.execute('UPDATE ledger_entry SET body = ? WHERE "index" = 5', (forged,))
        leaf = leaf_hash(forged.encode()).hex()
        connection.execute("UPDATE ledger_node SET hash = ? WHERE id = '0:5'", (leaf,))

    found = crime.verdict(change)

    assert not found.ok
    assert any("root" in text for text in found.problems)


def test_one_byte_of_a_payload_is_found_and_the_entry_named(crime: Crime) -> None:
    index = entry_of(crime, "gate.approve")

    def change(connection: sqlite3.Connection) -> None:
        key = log.entry_id(index)
        text = one(connection, "SELECT text FROM ledger_payload WHERE id = ?", key)
        forged = text.replace('"comment":"ok"', '"comment":"no"')
        assert text != forged
        connection.execute("UPDATE ledger_payload SET text = ? WHERE id = ?", (forged, key))

    found = crime.verdict(change)

    assert index == found.first_bad_entry
    assert any(f"payload of entry {index}" in text for text in found.problems)


@pytest.mark.parametrize(
    ("table", "assignment"),
    [
        ("alias_move", "why = why || '!'"),
        ("alias_move", "version = NULL"),
        ("model_version", "version = '9.9.9'"),
        ("model_version", "artifact = 'blake3:' || artifact"),
        ("gate_report", "passed = NOT passed"),
        ("approval", "approver = 'somebody'"),
        ("deployment", "champion = NULL"),
        ("dataset_version", "rows = rows + 1"),
        ("prediction_segment", "labelled = 0"),
        ("edge", "target = 'run:another'"),
        ("actor", "name = name || 'x'"),
        ("role_grant", "role = 'viewer'"),
    ],
)
def test_a_changed_row_is_found_and_named(crime: Crime, table: str, assignment: str) -> None:
    chosen: list[str] = []

    def change(connection: sqlite3.Connection) -> None:
        # Not the owner's own rows: a store that its owner cannot use is found soon enough.
        where = "ORDER BY id DESC LIMIT 1"
        if table == "alias_move":
            where = "AND version IS NOT NULL ORDER BY id DESC LIMIT 1"
        key = one(connection, f"SELECT id FROM {table} WHERE 1 {where}")
        chosen.append(key)
        connection.execute(f"UPDATE {table} SET {assignment} WHERE id = ?", (key,))

    found = crime.verdict(change)

    assert not found.ok
    (problem,) = [text for text in found.problems if f"{table}:{chosen[0]}" in text]
    assert "changed outside the log" in problem


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("model_version", "signature", "{"),
        ("run", "status", "flying"),
        ("gate_report", "at", "yesterday"),
        ("release", "config", b"\xff\x00"),
    ],
)
def test_a_row_that_cannot_be_read_any_more_is_named(
    crime: Crime, table: str, column: str, value: object
) -> None:
    chosen: list[str] = []

    def change(connection: sqlite3.Connection) -> None:
        chosen.append(one(connection, f"SELECT id FROM {table} LIMIT 1"))
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (value, chosen[0]))

    found = crime.verdict(change)

    assert any(f"{table}:{chosen[0]}" in text for text in found.problems), found.problems


@pytest.mark.parametrize("table", ["model_version", "alias_move", "approval", "edge"])
def test_a_deleted_row_is_found_and_named(crime: Crime, table: str) -> None:
    chosen: list[str] = []

    def change(connection: sqlite3.Connection) -> None:
        chosen.append(one(connection, f"SELECT id FROM {table} ORDER BY id DESC LIMIT 1"))
        connection.execute(f"DELETE FROM {table} WHERE id = ?", (chosen[0],))

    found = crime.verdict(change)

    (problem,) = [text for text in found.problems if f"{table}:{chosen[0]}" in text]
    assert "gone without a logged deletion" in problem


def test_a_row_that_nobody_logged_is_found_and_named(crime: Crime) -> None:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO approval SELECT 'forged', revision, project, version, artifact, "
            "'mallory', comment, at FROM approval"
        )

    found = crime.verdict(change)

    assert any("approval:forged has no entry in the log" in text for text in found.problems)


@pytest.mark.parametrize("index", [0, 12, 40])
def test_a_deleted_entry_is_found_and_named(crime: Crime, index: int) -> None:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute('DELETE FROM ledger_entry WHERE "index" = ?', (index,))

    found = crime.verdict(change)

    assert index == found.first_bad_entry
    assert any(f"Entry {index} was deleted" in text for text in found.problems)


def test_a_deleted_payload_is_found_and_the_entry_named(crime: Crime) -> None:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM ledger_payload WHERE id = ?", (log.entry_id(20),))

    found = crime.verdict(change)

    assert any("payload of entry 20 is gone" in text for text in found.problems)


def test_two_swapped_entries_are_found_and_named(crime: Crime) -> None:
    def change(connection: sqlite3.Connection) -> None:
        bodies = [
            one(connection, f'SELECT body FROM ledger_entry WHERE "index" = {index}')
            for index in (33, 34)
        ]
        for index, body in zip((34, 33), bodies, strict=True):
            connection.execute('UPDATE ledger_entry SET body = ? WHERE "index" = ?', (body, index))

    found = crime.verdict(change)

    assert 33 == found.first_bad_entry
    assert any("reordered" in text and "34" in text for text in found.problems)


def test_a_changed_column_that_lists_show_is_found(crime: Crime) -> None:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("""UPDATE ledger_entry SET actor = 'ann' WHERE "index" = 9""")

    found = crime.verdict(change)

    assert any("Entry 9: its columns" in text for text in found.problems)


def test_an_entry_hidden_from_look_ups_is_found(crime: Crime) -> None:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM ledger_ref WHERE entry = 11")

    found = crime.verdict(change)

    assert any("Entry 11: it cannot be found" in text for text in found.problems)


def _cut(connection: sqlite3.Connection, keep: int) -> None:
    """Cut the tail off and put back the head of that time, as an older backup would."""
    first = log.entry_id(keep)
    connection.execute('DELETE FROM ledger_entry WHERE "index" >= ?', (keep,))
    connection.execute("DELETE FROM ledger_payload WHERE id >= ?", (first,))
    connection.execute("DELETE FROM ledger_ref WHERE entry >= ?", (keep,))
    for key in connection.execute("SELECT id FROM ledger_node").fetchall():
        level, position = map(int, key[0].split(":"))
        if (position + 1) << level > keep:
            connection.execute("DELETE FROM ledger_node WHERE id = ?", key)
    connection.execute("DELETE FROM ledger_checkpoint WHERE size > ? AND id <> 'latest'", (keep,))


def test_a_truncated_tail_is_found_by_the_anchor_and_named(crime: Crime) -> None:
    keep = size(crime) - 5
    kept = next(note for note in crime.anchors if note.split("\n")[1] == str(keep))

    def change(connection: sqlite3.Connection) -> None:
        _cut(connection, keep)
        connection.execute(
            "UPDATE ledger_checkpoint SET note = ?, size = ? WHERE id = 'latest'", (kept, keep)
        )
        moves = "SELECT id FROM alias_move ORDER BY number DESC LIMIT 5"
        connection.execute(f"DELETE FROM alias_move WHERE id IN ({moves})")

    unanchored = crime.verdict(change)
    anchored = crime.verdict(change, anchored=True)

    assert unanchored.ok, unanchored.problems  # the older state is a state that once was
    assert any("No anchor" in text for text in unanchored.warnings)
    assert not anchored.ok
    assert keep == anchored.first_bad_entry
    assert any(f"{keep} to {keep + 4} were cut off" in text for text in anchored.problems)


def test_a_tail_cut_off_under_the_same_head_is_found_without_an_anchor(crime: Crime) -> None:
    keep = size(crime) - 3

    found = crime.verdict(lambda connection: _cut(connection, keep))

    assert keep == found.first_bad_entry
    assert not found.ok


def test_a_log_regrown_after_a_cut_is_found_by_the_anchors(crime: Crime) -> None:
    keep = size(crime) - 5
    kept = next(note for note in crime.anchors if note.split("\n")[1] == str(keep))

    def change(connection: sqlite3.Connection) -> None:
        _cut(connection, keep)
        connection.execute(
            "UPDATE ledger_checkpoint SET note = ?, size = ? WHERE id = 'latest'", (kept, keep)
        )
        moves = "SELECT id FROM alias_move ORDER BY number DESC LIMIT 5"
        connection.execute(f"DELETE FROM alias_move WHERE id IN ({moves})")

    robbed = crime.commit(change)
    for number in range(8):
        ask = MoveAlias(model="m", alias="mine", version=None if number % 2 else "1", why="y")
        robbed.owner.perform("model.alias", ask, AliasMove)
    alone = robbed.owner.perform("audit.verify", VerifyLedger(), LedgerVerdict)
    found = robbed.owner.perform(
        "audit.verify", VerifyLedger(anchor="".join(crime.anchors)), LedgerVerdict
    )
    robbed.kernel.store.close()

    assert alone.ok, alone.problems
    assert not found.ok
    assert any("rewritten" in text for text in found.problems)


def test_a_head_signed_by_another_key_is_found(crime: Crime) -> None:
    def change(connection: sqlite3.Connection) -> None:
        note = one(connection, "SELECT note FROM ledger_checkpoint WHERE id = 'latest'")
        forged = note.replace(f"\n{size(crime)}\n", f"\n{size(crime) - 1}\n", 1)
        assert note != forged
        connection.execute("UPDATE ledger_checkpoint SET note = ? WHERE id = 'latest'", (forged,))

    found = crime.verdict(change)

    assert any("checkpoint does not verify" in text for text in found.problems)


def test_a_missing_head_is_found(crime: Crime) -> None:
    found = crime.verdict(lambda connection: connection.execute("DELETE FROM ledger_checkpoint"))

    assert not found.ok
    assert any("no signed head" in text for text in found.problems)


@pytest.mark.parametrize(
    ("table", "assignment", "kind"),
    [
        ("model_version", "params = '{}'", "model_version"),
        ("dataset_version", "message = message || '?' ", "dataset_version"),
        ("gate_report", "passed = 0", "gate_report"),
        ("run", "code_commit = 'feed'", "run"),
    ],
)
def test_lineage_names_what_was_changed(
    crime: Crime, table: str, assignment: str, kind: str
) -> None:
    def change(connection: sqlite3.Connection) -> None:
        key = one(connection, f"SELECT id FROM {table} ORDER BY id LIMIT 1")
        connection.execute(f"UPDATE {table} SET {assignment} WHERE id = ?", (key,))

    robbed = crime.commit(change)
    ask = ShowLineage(ref=f"prediction:{crime.tale.predictions[0]}")

    found = robbed.owner.perform("lineage.show", ask, Lineage)
    robbed.kernel.store.close()

    (problem,) = found.broken
    assert problem.startswith(f"{kind}:")
    assert "changed outside the ledger" in problem


def test_lineage_names_an_edge_that_leads_elsewhere(crime: Crime) -> None:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE edge SET target = 'commit:feed' WHERE relation = 'code'",
        )

    robbed = crime.commit(change)
    ask = ShowLineage(ref=f"prediction:{crime.tale.predictions[0]}")

    found = robbed.owner.perform("lineage.show", ask, Lineage)
    robbed.kernel.store.close()

    (problem,) = found.broken
    assert "code commit:feed" in problem


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_checkpoint SET note = x'00ff'",
        "UPDATE ledger_checkpoint SET note = x'00ff' WHERE id != 'latest'",
        "UPDATE ledger_node SET hash = x'00ff' WHERE id = '0:3'",
        "UPDATE ledger_ref SET ref = x'00ff' WHERE entry = 3",
        'UPDATE ledger_entry SET revision = 7 WHERE "index" = 3',
    ],
)
def test_a_row_of_the_ledger_in_a_foreign_form_is_named_and_stops_nothing(
    crime: Crime, change: str
) -> None:
    found = crime.verdict(lambda connection: connection.execute(change))

    assert not found.ok
    assert found.problems


def test_an_unreadable_row_is_reported_as_a_breach_and_not_as_a_crash(crime: Crime) -> None:
    with pytest.raises(IntegrityError) as refused:
        crime.commit(lambda connection: connection.execute("UPDATE actor SET kind = 'alien'"))

    assert "record.unreadable" == refused.value.code
