"""Whether a thing is what its digest and the ledger say: bytes are read again, roots recomputed."""

from __future__ import annotations

from functools import singledispatch

from msgspec import Struct

from everloop.core.digest import Digest, parse_digest
from everloop.core.errors import IntegrityError
from everloop.core.records import Record
from everloop.data.manifest import load_manifest
from everloop.data.model import DatasetVersion
from everloop.kernel.ledger.proving import UNREADABLE, Prover, Standing
from everloop.kernel.unit_of_work import View
from everloop.monitor.model import FeedbackBatch, PredictionSegment
from everloop.monitor.segments import read_segment, segment_root
from everloop.registry.evidence import Approval, GateReport, Waiver, verify_report
from everloop.registry.formats import read_model_files
from everloop.registry.model import ModelVersion
from everloop.track.model import Run

SMALL_BYTES = 256 * 1024
"""Blobs up to this size are read again with every walk; larger ones when asked for."""


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether something verifies (None: there was nothing to verify), and why not."""

    verified: bool | None
    problem: str | None = None


def verify_row(row: Record, view: View, prover: Prover, *, is_deep: bool) -> Verdict:
    """Verify a record against the last ledger entry that changed it, and the bytes it names."""
    try:
        standing, entry = prover.standing(row)
        if standing is Standing.ERASED:
            return Verdict(verified=None, problem=standing.value)
        if standing is not Standing.PROVEN:
            by = "" if entry is None else f" (entry {entry} wrote it last)"
            return Verdict(verified=False, problem=f"{standing.value}{by}")
        check_content(row, view, is_deep)
    except UNREADABLE as error:
        return Verdict(verified=False, problem=getattr(error, "message", str(error)))
    return Verdict(verified=True)


def verify_blob(view: View, digest: str, *, is_deep: bool) -> tuple[Verdict, int | None]:
    """Verify stored bytes against their digest; return the verdict and their size."""
    blobs = view.services.blobs
    try:
        key = parse_digest(digest)
        size = blobs.size(key)
        if size is None:
            return Verdict(verified=False, problem="its bytes are gone"), None
        if size > SMALL_BYTES and not is_deep:
            return Verdict(verified=None, problem="too large to be read again in passing"), size
        _reread(view, key)
    except UNREADABLE as error:
        return Verdict(verified=False, problem=getattr(error, "message", str(error))), None
    return Verdict(verified=True), size


@singledispatch
def check_content(row: Record, view: View, is_deep: bool) -> None:
    """Read again what a record names by digest.

    Raises:
        IntegrityError: bytes, a root or a signature do not fit.
        NotFound: ``blob.not_found``.
    """
    del row, view, is_deep


@check_content.register
def _(row: ModelVersion, view: View, is_deep: bool) -> None:
    del is_deep
    read_model_files(view.services.blobs, row)


@check_content.register
def _(row: DatasetVersion, view: View, is_deep: bool) -> None:
    blobs = view.services.blobs
    manifest = load_manifest(blobs, row.manifest, row.root)
    for file in manifest.files:
        if is_deep or file.size_bytes <= SMALL_BYTES:
            _reread(view, file.digest)
        elif blobs.size(file.digest) != file.size_bytes:
            raise _damaged(f"its file {file.path[:80]!r} is gone or has another size")


@check_content.register
def _(row: GateReport, view: View, is_deep: bool) -> None:
    del is_deep
    verify_report(view, row, view.get(ModelVersion, row.version))


@check_content.register(Approval)
@check_content.register(Waiver)
def _(row: Approval | Waiver, view: View, is_deep: bool) -> None:
    del is_deep
    if view.get(ModelVersion, row.version).artifact != row.artifact:
        raise _damaged("it is about another artifact than its version has")


@check_content.register
def _(row: PredictionSegment, view: View, is_deep: bool) -> None:
    del is_deep
    if segment_root(read_segment(view.services.blobs.get(row.blob))) != row.root:
        raise _damaged("its rows do not give the root that was sealed")


@check_content.register
def _(row: FeedbackBatch, view: View, is_deep: bool) -> None:
    del is_deep
    _reread(view, row.outcomes)


@check_content.register
def _(row: Run, view: View, is_deep: bool) -> None:
    del is_deep
    if row.environment is not None:
        _reread(view, row.environment)


def _reread(view: View, digest: Digest) -> None:
    for _ in view.services.blobs.stream(digest):
        pass


def _damaged(why: str) -> IntegrityError:
    return IntegrityError(
        "lineage.broken",
        f"It does not verify: {why}.",
        hint="Run `everloop audit verify` and restore what was changed from a backup.",
    )
