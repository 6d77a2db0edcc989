"""A small real ledger in memory: aliases that move, a refusal, a deletion and an erasure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from everloop.core import merkle
from everloop.core.canonical import canonical_json
from everloop.core.digest import record_digest
from everloop.kernel.ledger import bundle, checkpoint

ORIGIN = "ledger.example.org"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
VKEY = checkpoint.verifier_key(ORIGIN, KEY.public_key().public_bytes_raw())
OTHER_VKEY = checkpoint.verifier_key(ORIGIN, OTHER_KEY.public_key().public_bytes_raw())
SIZE = 24
DENIED = 7
ERASED = 9
ERASURE = 15
DELETION = 17
CHECKPOINTS = (4, 10, 16)


@dataclass
class SampleLedger:
    """Entries, payloads, tree and records, written as the product writes them."""

    key: Ed25519PrivateKey = KEY
    bodies: list[bytes] = field(default_factory=list)
    payloads: list[bundle.ExportedPayload] = field(default_factory=list)
    records: dict[tuple[str, str], str] = field(default_factory=dict)
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def append(
        self,
        action: str,
        *,
        outcome: str = "ok",
        refs: tuple[str, ...] = (),
        changes: Sequence[Mapping[str, object]] = (),
        restated: Sequence[Mapping[str, object]] = (),
    ) -> None:
        number = len(self.bodies)
        salt = hashlib.sha256(b"salt %d" % number).digest()
        content = {
            "input": {"n": number},
            "changes": list(changes),
            "edges": [],
            "reason": "größer",
        }
        payload = canonical_json({**content, "restated": list(restated)} if restated else content)
        body = canonical_json(
            {
                "v": 1,
                "idx": number,
                "ts": f"2026-11-21T10:00:00.{number:06d}Z",
                "actor": "ann",
                "on_behalf_of": None,
                "action": action,
                "resource": f"model:m{number % 3}",
                "outcome": outcome,
                "reason_code": None if outcome == "ok" else "model.not_approved",
                "refs": list(refs),
                "payload_digest": "sha256:" + hashlib.sha256(salt + payload).hexdigest(),
                "request_id": f"req{number}",
                "policy_id": "default",
                "project": "demo",
            }
        )
        self.append_body(body)
        self.payloads.append(bundle.ExportedPayload(number, salt.hex(), payload.decode()))

    def append_body(self, body: bytes) -> None:
        for level, index, node in merkle.new_nodes(len(self.bodies), body, self.node):
            self.nodes[level, index] = node
        self.bodies.append(body)

    def write_alias(self, key: str, version: int) -> None:
        text = canonical_json({"id": key, "version": version})
        op = "replace" if ("alias", key) in self.records else "insert"
        self.records["alias", key] = text.decode()
        change = {"kind": "alias", "key": key, "op": op, "digest": record_digest(text)}
        self.append("model.promote", changes=(change,))

    def delete_alias(self, key: str) -> None:
        del self.records["alias", key]
        change = {"kind": "alias", "key": key, "op": "delete", "digest": None}
        self.append("alias.delete", changes=(change,))

    def erase(self, number: int) -> None:
        text = self.payloads[number].text
        changes = json.loads(text)["changes"] if text else []
        self.payloads[number] = bundle.ExportedPayload(number, None, None)
        restated = ({"entry": number, "changes": changes},) if changes else ()
        self.append("payload.erase", refs=(f"entry:{number}",), restated=restated)

    def head(self, size: int) -> str:
        return checkpoint.sign_checkpoint(
            checkpoint.Checkpoint(ORIGIN, size, merkle.root(size, self.node)),
            ORIGIN,
            self.key.sign,
            self.key.public_key().public_bytes_raw(),
        )

    def export(self, folder: Path, checkpoints: tuple[int, ...] = CHECKPOINTS) -> Path:
        size = len(self.bodies)
        sizes = [*checkpoints, size]
        return bundle.write_bundle(
            folder,
            head=bundle.LogHead(
                origin=ORIGIN,
                vkey=checkpoint.verifier_key(ORIGIN, self.key.public_key().public_bytes_raw()),
                created="2026-11-21T12:00:00.000000Z",
                size=size,
                checkpoint=self.head(size),
                earlier=[self.head(earlier) for earlier in checkpoints],
            ),
            entries=[bundle.ExportedEntry(i, body.decode()) for i, body in enumerate(self.bodies)],
            payloads=self.payloads,
            records=[bundle.ExportedRecord(*name, text) for name, text in self.records.items()],
            proofs=[
                bundle.ExportedProof(old, new, merkle.consistency_proof(old, new, self.node))
                for old, new in pairwise(sizes)
            ],
            leaves=[self.nodes[0, index] for index in range(size)],
        )


def sample_ledger(key: Ed25519PrivateKey = KEY, *, first_version: int = 0) -> SampleLedger:
    """Return the ledger that the tests tamper with."""
    ledger = SampleLedger(key)
    for number in range(SIZE):
        if number == DENIED:
            ledger.append("model.promote", outcome="denied")
        elif number == ERASED:
            ledger.append("feedback.add")
        elif number == ERASURE:
            ledger.erase(ERASED)
        elif number == DELETION:
            ledger.delete_alias("m2")
        elif number % 3 == 2 and number > DELETION:
            ledger.append("model.read")
        else:
            ledger.write_alias(f"m{number % 3}", number + first_version)
    return ledger


def edit_lines(path: Path, change: Callable[[list[str]], None]) -> None:
    """Let ``change`` edit the file's lines in place."""
    lines = path.read_text("utf-8").splitlines()
    change(lines)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def drop_line(path: Path, number: int) -> None:
    """Delete one line, as a deleted row of the database would be missing."""

    def drop(lines: list[str]) -> None:
        del lines[number]

    edit_lines(path, drop)


def edit_body(folder: Path, number: int, old: str, new: str) -> None:
    """Replace text in the body of one entry, as an editor of the database would."""

    def change(lines: list[str]) -> None:
        row = json.loads(lines[number])
        assert old in row["body"]
        lines[number] = json.dumps({**row, "body": row["body"].replace(old, new)})

    edit_lines(folder / "entries.jsonl", change)
