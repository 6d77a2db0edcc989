"""Rereads every byte of a model version and says what holds and what does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec import Struct

from everloop.core.digest import Digest, content_digest
from everloop.core.errors import EverloopError, MissingExtra
from everloop.core.manifest import FileEntry
from everloop.core.ports import BlobStore
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.examples import read_examples
from everloop.registry.formats import artifact_digest, open_version
from everloop.registry.model import ModelVersion
from everloop.registry.signature import find_row_problems, to_matrix


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        what: The artifact, a file, a blob beside it, or what the model does.
        held: Whether it is as it was registered; None when that can't be told here.
        told: What was found, in a sentence.
    """

    what: str
    held: bool | None
    told: str


class Verification(Struct, frozen=True, kw_only=True):
    """Everything that was found about a version; ``held`` when nothing is wrong."""

    version: str
    artifact: Digest
    held: bool
    findings: tuple[Finding, ...]


def verify_version(blobs: BlobStore, version: ModelVersion, policy: LoadPolicy) -> Verification:
    """Reread all bytes of a version, load it, and let it answer its example rows."""
    found = [_check("artifact", lambda: _artifact(version))]
    found += [_check(entry.path, partial(_file, blobs, entry)) for entry in version.files]
    for what, digest in (("reference", version.reference), ("examples", version.examples)):
        if digest is not None:
            found.append(_check(what, partial(_blob, blobs, digest)))
    if all(finding.held for finding in found):
        found.append(_check("model", lambda: _answers(blobs, version, policy)))
    return Verification(
        version=f"{version.name}@{version.version}",
        artifact=version.artifact,
        held=all(finding.held is not False for finding in found),
        findings=tuple(found),
    )


# Folders of other systems that nothing here may load: their bytes hold, and more can't be told.
_UNTOLD = frozenset({"model.not_servable", "signature.unknown"})


class _WrongError(Exception):
    """It is not as it was registered."""


def _check(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, held=True, told=look())
    except MissingExtra as error:
        return Finding(what=what, held=None, told=f"{error.message} {error.hint}")
    except EverloopError as error:
        held = None if error.code in _UNTOLD else False
        return Finding(what=what, held=held, told=error.message)
    except _WrongError as error:
        return Finding(what=what, held=False, told=str(error))


def _artifact(version: ModelVersion) -> str:
    found = artifact_digest(version.format, version.files, version.signature)
    if found != version.artifact:
        raise _WrongError(f"Format, files and signature are those of {found}.")
    return "Format, files and signature have its digest."


def _file(blobs: BlobStore, entry: FileEntry) -> str:
    told = _blob(blobs, entry.digest)
    size = blobs.size(entry.digest)
    if size != entry.size_bytes:
        raise _WrongError(f"It has {size} bytes, not {entry.size_bytes}.")
    return told


def _blob(blobs: BlobStore, digest: Digest) -> str:
    data = blobs.get(digest)
    if content_digest(data) != digest:
        raise _WrongError(f"Its bytes are those of {content_digest(data)}.")
    return f"{len(data)} bytes, as stored under {digest}."


def _answers(blobs: BlobStore, version: ModelVersion, policy: LoadPolicy) -> str:
    predictor = open_version(blobs, version, policy)
    try:
        if version.examples is None:
            return "It loads; there are no example rows to ask it about."
        table = read_examples(blobs, version.examples)
        problems = find_row_problems(version.signature, table)
        if problems:
            raise _WrongError(f"Its example rows do not fit: {'; '.join(problems[:3])}.")
        answers = predictor.predict(to_matrix(version.signature, table))
        return f"It loads and answers its {len(answers)} example rows."
    finally:
        predictor.close()
