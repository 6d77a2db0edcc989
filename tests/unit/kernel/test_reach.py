"""Which stored bytes count as needed."""

from __future__ import annotations

import itertools
import types
import typing
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from everloop.app.verbs import load_verbs
from everloop.core.digest import Digest, content_digest, digests_in
from everloop.core.ids import Id, ProjectId
from everloop.core.manifest import FileEntry, Manifest
from everloop.core.records import Kind, Record, declared_kinds
from everloop.data.manifest import store_manifest
from everloop.kernel.ledger.log import LedgerPayload
from everloop.kernel.lineage import Edge
from everloop.kernel.reach import OPAQUE, SILENT, needed_blobs
from everloop.storage.memory import MemoryMetadataStore
from everloop.storage.memory_blobs import MemoryBlobStore

load_verbs()
AT = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = [kind for kind in declared_kinds().values() if kind.name not in SILENT]


class Maker:
    """Makes a value of any declared type, with a new digest wherever the type says Digest."""

    def __init__(self) -> None:
        self.digests: list[Digest] = []
        self._numbers = itertools.count()

    def record(self, kind: type[Any]) -> Any:
        hints = get_type_hints(kind, include_extras=True)
        made = {name: self.value(hints[name]) for name in kind.__struct_fields__}
        try:
            return kind(**made)
        except ValueError:
            # One whose fields must mean something together: as it is where nothing is said.
            needed = kind.__struct_fields__[: -len(kind.__struct_defaults__) or None]
            return kind(**{name: made[name] for name in needed})

    def value(self, hint: Any) -> Any:
        if hint is Digest:
            self.digests.append(content_digest(str(next(self._numbers)).encode()))
            return self.digests[-1]
        if isinstance(hint, typing.NewType):
            return self.value(hint.__supertype__)
        origin, parts = get_origin(hint), get_args(hint)
        if origin is typing.Annotated:
            return self.value(parts[0])
        if origin in {Union, types.UnionType}:
            return self.value(next(part for part in parts if part is not type(None)))
        if origin is Literal:
            return parts[0]
        if origin is tuple:
            return (self.value(parts[0]),)
        if origin is dict:
            return {"key": self.value(parts[1])}
        return self._plain(hint)

    def _plain(self, hint: Any) -> Any:
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self.record(hint)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return next(iter(hint))
        values = {str: "text", int: 1, float: 0.5, bool: True, datetime: AT, bytes: b"b"}
        return values.get(hint, "anything")


def digests_of(kind: Kind) -> list[Digest]:
    maker = Maker()
    maker.record(kind.type)
    return maker.digests


def needed(*rows: Record, blobs: MemoryBlobStore | None = None, **given: Any) -> set[Digest]:
    store = MemoryMetadataStore(declared_kinds())
    with store.write() as tx:
        for row in rows:
            tx.insert(row)
    with store.read() as tx:
        return needed_blobs(tx, blobs or MemoryBlobStore(), **given)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if digests_of(kind)], ids=lambda kind: str(kind.name)
)
def test_every_digest_of_every_kind_of_record_counts(kind: Kind) -> None:
    maker = Maker()
    row = maker.record(kind.type)

    assert set(maker.digests) == needed(row)


def test_the_kinds_that_are_known_to_name_bytes_are_among_them() -> None:
    names = {kind.name for kind in KINDS if digests_of(kind)}

    assert names >= {
        "artifact_entry", "audit_export", "dataset_version", "feedback_batch", "gate_report",
        "metric_chunk", "model_version", "prediction_segment", "run", "window",
    }  # fmt: skip


def test_a_kind_that_is_passed_over_has_no_digest_but_the_ledger() -> None:
    passed = [declared_kinds()[name] for name in SILENT if name in declared_kinds()]

    assert [] == [kind.name for kind in passed if digests_of(kind)]


def test_a_field_known_to_hold_users_bytes_exists() -> None:
    for kind, field in OPAQUE:
        assert field in declared_kinds()[kind].type.__struct_fields__


def edge(target: str) -> Edge:
    return Edge(
        id=Id("1"), project=ProjectId("p"), source="run:1", relation="wrote", target=target, at=AT
    )


def test_a_digest_in_the_middle_of_a_text_counts() -> None:
    digest = content_digest(b"artifact")

    assert {digest} == needed(edge(f"blob:{digest}"))


def test_what_a_manifest_lists_counts() -> None:
    blobs = MemoryBlobStore()
    file = FileEntry(path="a.csv", digest=blobs.put(b"a,b"), size_bytes=3)
    manifest = store_manifest(blobs, Manifest(files=(file,)))
    deeper = blobs.put(msgspec.json.encode([manifest]))

    assert {deeper, manifest, file.digest} == needed(edge(f"blob:{deeper}"), blobs=blobs)


def test_the_ledger_keeps_no_bytes() -> None:
    digest = content_digest(b"gone")

    assert set() == needed(LedgerPayload(id=Id("0"), salt="", text=f'["{digest}"]'))


def test_a_row_that_would_go_needs_nothing() -> None:
    digest = content_digest(b"artifact")

    assert set() == needed(edge(f"blob:{digest}"), without={("edge", "1")})


def test_digests_are_found_wherever_they_stand() -> None:
    one, other = content_digest(b"1"), content_digest(b"2")

    assert [one, other] == digests_in(f'{{"a":"{one}","b":["x {other}.parquet"]}}')
