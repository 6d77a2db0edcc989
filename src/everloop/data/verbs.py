"""Committing a version of a dataset, and checking one against a contract."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest, parse_digest
from everloop.core.errors import Conflict, GateFailed, InvalidInput, JsonValue
from everloop.core.ids import check_name
from everloop.core.manifest import Files, Manifest, make_manifest, manifest_root
from everloop.core.ports import BlobStore
from everloop.data.contract import Contract, Violation, check_contract, read_contract
from everloop.data.manifest import require_files, store_manifest
from everloop.data.model import DataFormat, Dataset, DatasetVersion, SourceInfo
from everloop.data.profile import make_reference, profile_table
from everloop.data.queries import RefText, find_dataset, latest_version, resolve_dataset
from everloop.data.schema import TableSchema, infer_schema
from everloop.data.tables import detect_format, read_files, read_table
from everloop.kernel.nodes import require_ref
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import Payload, verb

Name = Annotated[str, Meta(min_length=1, max_length=100)]
_SHOWN = 20


class CommitDataset(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The files of a new version; their bytes are uploaded before.

    Attributes:
        contract: What the table promises; left out, the contract of the project's configuration.
        allow_violations: Commit although promises are broken; the answer lists them.
    """

    name: Name
    files: Files
    message: Annotated[str, Meta(max_length=2_000)] = ""
    source: SourceInfo = SourceInfo()
    contract: Contract | None = None
    allow_violations: bool = False


class Committed(Struct, frozen=True, kw_only=True):
    """The version that now holds the files.

    Attributes:
        is_new: False when the newest version held exactly these files already.
        violations: Broken promises that were let through.
    """

    version: DatasetVersion
    is_new: bool
    violations: tuple[Violation, ...] = ()


class CheckDataset(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version to check and the contract; left out, the one of the project's configuration."""

    ref: RefText
    contract: Contract | None = None


class CheckAnswer(Struct, frozen=True, kw_only=True):
    """Whether a version keeps a contract, and every promise that it breaks."""

    version: DatasetVersion
    passed: bool
    violations: tuple[Violation, ...]


class _Snapshot(Struct, frozen=True, kw_only=True):
    """All that is worked out about a commit before its transaction."""

    manifest: Manifest
    root: Digest
    manifest_blob: Digest
    format: DataFormat
    rows: int | None = None
    schema: TableSchema | None = None
    profile: Digest | None = None
    reference: Digest | None = None
    violations: tuple[Violation, ...] = ()


def _prepare_commit(ask: CommitDataset, desk: Desk) -> _Snapshot:
    check_name(ask.name, "Dataset")
    for entry in ask.files:
        parse_digest(entry.digest)
    manifest = make_manifest(ask.files)
    with desk.read() as view:
        contract = ask.contract or _configured_contract(view, ask.name)
    blobs = desk.services.blobs
    require_files(blobs, manifest.files)
    data_format = detect_format(entry.path for entry in manifest.files)
    snapshot = _Snapshot(
        manifest=manifest,
        root=manifest_root(manifest),
        manifest_blob=store_manifest(blobs, manifest),
        format=data_format,
    )
    if data_format == "files":
        if contract is not None:
            raise InvalidInput(
                "data.not_a_table",
                f"Dataset {ask.name!r} has a contract, but these files are no table.",
                hint="Commit Parquet or CSV files only, all of one kind, or drop the contract.",
            )
        return snapshot
    return _describe(snapshot, blobs, contract, allow_violations=ask.allow_violations)


@verb("data.commit", permission="data:write", prepare=_prepare_commit, payload=Payload.DIGEST)
def commit_dataset(ask: CommitDataset, work: Work, snapshot: _Snapshot) -> Committed:
    """Record files as the next version of a dataset; the same files again change nothing.

    Raises:
        InvalidInput: a path, a name or a file is not usable; ``data.reason_missing`` for a broken
            contract and no reason.
        NotFound: ``blob.not_found`` for bytes that were never uploaded.
        GateFailed: ``data.contract_violated``.
    """
    work.claim(entry.digest for entry in snapshot.manifest.files)
    dataset = find_dataset(work, ask.name)
    latest = latest_version(work, dataset.id) if dataset else None
    if latest is not None and latest.root == snapshot.root:
        return Committed(version=latest, is_new=False, violations=snapshot.violations)
    if snapshot.violations and not (work.reason or "").strip():
        raise InvalidInput(
            "data.reason_missing",
            "Data that breaks its contract is committed with a reason only.",
            hint="Say why, in a sentence: --reason, or reason=... in Python.",
        )
    if dataset is None:
        dataset = work.insert(
            Dataset(id=work.new_id(), project=work.project, name=ask.name, created_at=work.now)
        )
    version = DatasetVersion(
        id=work.new_id(),
        project=work.project,
        dataset=dataset.id,
        name=ask.name,
        number=latest.number + 1 if latest else 1,
        root=snapshot.root,
        manifest=snapshot.manifest_blob,
        format=snapshot.format,
        rows=snapshot.rows,
        size_bytes=sum(entry.size_bytes for entry in snapshot.manifest.files),
        schema=snapshot.schema,
        profile=snapshot.profile,
        reference=snapshot.reference,
        source=ask.source,
        message=ask.message,
        created_at=work.now,
        created_by=work.caller.actor,
    )
    work.touch(f"dataset_version:{version.id}", f"dataset:{dataset.id}")
    work.insert(version)
    source = ask.source.digest or version.root
    work.link(f"dataset_version:{version.id}", "snapshot_of", f"source:{source}")
    for origin in ask.source.origins:
        work.link(f"dataset_version:{version.id}", "joined_from", require_ref(work, origin))
    return Committed(version=version, is_new=True, violations=snapshot.violations)


def _prepare_check(ask: CheckDataset, desk: Desk) -> CheckAnswer:
    with desk.read() as view:
        version = resolve_dataset(view, ask.ref)
        contract = ask.contract or _configured_contract(view, version.name)
    if contract is None:
        raise Conflict(
            "data.contract_missing",
            f"Dataset {version.name!r} has no contract.",
            hint=f"Write one in everloop.yaml under datasets.{version.name}.contract.",
        )
    violations = tuple(check_contract(read_table(desk.services.blobs, version), contract))
    return CheckAnswer(version=version, passed=not violations, violations=violations)


@verb("data.check", permission="data:read", prepare=_prepare_check)
def check_dataset(ask: CheckDataset, work: Work, answer: CheckAnswer) -> CheckAnswer:
    """Check a version against a contract; changes nothing.

    Raises:
        Conflict: ``data.contract_missing`` when neither the call nor the configuration has one.
    """
    del ask, work
    return answer


def _describe(
    snapshot: _Snapshot, blobs: BlobStore, contract: Contract | None, *, allow_violations: bool
) -> _Snapshot:
    table = read_files(blobs, snapshot.manifest.files, snapshot.format)
    violations = tuple(check_contract(table, contract)) if contract else ()
    if violations and not allow_violations:
        raise _violated(violations)
    reference = make_reference(table)
    return _Snapshot(
        manifest=snapshot.manifest,
        root=snapshot.root,
        manifest_blob=snapshot.manifest_blob,
        format=snapshot.format,
        rows=table.num_rows,
        schema=infer_schema(table),
        profile=blobs.put(canonical_json(profile_table(table, reference))),
        reference=blobs.put(canonical_json(reference)),
        violations=violations,
    )


def _configured_contract(view: View, name: str) -> Contract | None:
    datasets = view.settings().get("datasets")
    entry = datasets.get(name) if isinstance(datasets, dict) else None
    contract = entry.get("contract") if isinstance(entry, dict) else None
    return read_contract(contract) if isinstance(contract, dict) else None


def _violated(violations: tuple[Violation, ...]) -> GateFailed:
    shown: list[JsonValue] = [
        {"column": item.column, "rule": item.rule, "count": item.count, "message": item.message}
        for item in violations[:_SHOWN]
    ]
    return GateFailed(
        "data.contract_violated",
        f"The data breaks {len(violations)} "
        f"{'promise' if len(violations) == 1 else 'promises'} of its contract: "
        + "; ".join(item.message for item in violations[:3])
        + ".",
        hint="Correct the data or the contract, or commit with allow_violations and a reason.",
        context={"violations": shown},
    )
