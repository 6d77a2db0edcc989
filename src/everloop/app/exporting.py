"""Takes a sealed bundle out of the registry: as a verb, and as a client's call.

What leaves serves without us, out of reach of every rollback. So it needs what a release needs, the
permission and the passed gate, and the ledger tells for ever who took which version out.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from everloop.app.bundles import write_sealed
from everloop.core.digest import Digest, sha256_digest
from everloop.core.errors import Conflict, IntegrityError
from everloop.core.ids import Id
from everloop.export.archives import from_tar, to_tar
from everloop.export.model import Subject
from everloop.kernel.performer import Performer
from everloop.kernel.signing import is_signed
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import query, verb
from everloop.registry.evidence import EVALUATOR, require_pass
from everloop.registry.formats import require_served
from everloop.registry.lookup import resolve_model
from everloop.registry.model import ModelVersion
from everloop.registry.proof import require_proven
from everloop.release.queries import get_deployment
from everloop.serve.bundle import DESCRIPTION, SIGNATURE, Bundle

_DEPLOYMENT: Final = "deployment:"


class ExportBundle(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the sealed bundle of a version, to serve it without this system.

    Attributes:
        ref: A version, as ``model:credit@3``, or a deployment, whose champion is meant.
    """

    ref: Annotated[str, Meta(min_length=1, max_length=300)]


class ScoreBundle(ExportBundle, frozen=True, kw_only=True):
    """Ask for the sealed bundle of a version, to answer the rows of files with it."""


class ExportedBundle(Struct, frozen=True, kw_only=True):
    """A sealed bundle that left.

    Attributes:
        version: The model version.
        name: The deployment's name, or the model's.
        archive: Digest of the bundle as a tar archive.
        seal: SHA-256 of its signed description.
        public_key: Hex of the key that signed it.
        size_bytes: Size of the archive.
    """

    version: Id
    name: str
    archive: Digest
    seal: Digest
    public_key: str
    size_bytes: int


class AskSealKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for the key that seals bundles."""


class SealKey(Struct, frozen=True, kw_only=True):
    """Hex of the Ed25519 public key that a server of bundles is pinned to."""

    public_key: str


def _seal(ask: ExportBundle, desk: Desk) -> ExportedBundle:
    with desk.read() as view, tempfile.TemporaryDirectory(prefix="everloop-bundle-") as name:
        version, deployment = _find(view, ask.ref)
        _require_exportable(view, version)
        folder = Path(name) / "bundle"
        write_sealed(view, version, folder, deployment)
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
    archive = to_tar(files)
    return ExportedBundle(
        version=version.id,
        name=deployment or version.name,
        archive=desk.services.blobs.put(archive),
        seal=sha256_digest(files[DESCRIPTION]),
        public_key=desk.services.signers[EVALUATOR].public_key.hex(),
        size_bytes=len(archive),
    )


@verb("bundle.export", permission="model:release", prepare=_seal)
def export_bundle(ask: ExportBundle, work: Work, sealed: ExportedBundle) -> ExportedBundle:
    """Take the sealed bundle of a version that passed its gate out of this system.

    Raises:
        NotFound: no such version or deployment.
        Conflict: ``deployment.empty`` for one without a champion, ``bundle.raced`` when another
            version became the champion meanwhile.
        GateFailed: ``gate.missing`` or ``gate.failed``.
        UnsafeArtifact: ``artifact.not_served`` for a format that never answers in production.
    """
    return _hand_out(ask, work, sealed, "exported")


@verb("bundle.score", permission="model:predict", prepare=_seal)
def score_bundle(ask: ScoreBundle, work: Work, sealed: ExportedBundle) -> ExportedBundle:
    """Take the sealed bundle of a version that passed its gate, to answer rows where they lie.

    Whoever may ask a deployment may do so: the answers are the same, and the ledger tells who did.

    Raises:
        NotFound: no such version or deployment.
        Conflict: ``deployment.empty`` for one without a champion, ``bundle.raced`` when another
            version became the champion meanwhile.
        GateFailed: ``gate.missing`` or ``gate.failed``.
        UnsafeArtifact: ``artifact.not_served`` for a format that never answers in production.
    """
    return _hand_out(ask, work, sealed, "scored_with")


def _hand_out(ask: ExportBundle, work: Work, sealed: ExportedBundle, note: str) -> ExportedBundle:
    version, _ = _find(work, ask.ref)
    if version.id != sealed.version:
        raise Conflict(
            "bundle.raced",
            f"{ask.ref[:80]} named another version when its bundle was sealed.",
            hint="Export again.",
        )
    _require_exportable(work, version)
    work.touch(f"model_version:{version.id}")
    # No row changes, and it shall be known for ever all the same.
    work.notes[note] = sealed.seal
    return sealed


@query("bundle.key", permission="model:read")
def show_seal_key(ask: AskSealKey, view: View) -> SealKey:
    """Show the public key with which this system seals bundles."""
    del ask
    return SealKey(public_key=view.services.signers[EVALUATOR].public_key.hex())


def fetch_subject(
    performer: Performer, ref: str, *, reason: str | None = None, to_score: bool = False
) -> Subject:
    """Return the sealed bundle that a ref names, its seal checked on this side.

    Args:
        performer: Where it is.
        ref: A version or a deployment.
        reason: Why, for the record.
        to_score: Only to answer rows with it, which needs less than to take it away.

    Raises:
        IntegrityError: ``bundle.signature``: it is not what the server's key sealed.
        EverloopError: what the verbs ``bundle.export`` and ``bundle.score`` refuse.
    """
    ask = ScoreBundle(ref=ref) if to_score else ExportBundle(ref=ref)
    name = "bundle.score" if to_score else "bundle.export"
    told = performer.perform(name, ask, ExportedBundle, reason=reason)
    files = from_tar(performer.blobs.get(told.archive))
    text = files.get(DESCRIPTION, b"")
    try:
        signature = bytes.fromhex(files.get(SIGNATURE, b"").decode("ascii"))
        is_sealed = is_signed(bytes.fromhex(told.public_key), signature, text)
    except ValueError:
        is_sealed = False
    if not is_sealed or sha256_digest(text) != told.seal:
        raise IntegrityError(
            "bundle.signature",
            "The bundle is not what the server says it sealed.",
            hint="Export again; find out what changed it on its way.",
        )
    bundle = msgspec.json.decode(text, type=Bundle)
    return Subject(bundle=bundle, files=files, public_key=told.public_key)


def _find(view: View, ref: str) -> tuple[ModelVersion, str]:
    """Return the version, and the deployment's name or nothing."""
    if not ref.startswith(_DEPLOYMENT):
        return resolve_model(view, ref), ""
    deployment = get_deployment(view, ref)
    if deployment.champion is None:
        raise Conflict(
            "deployment.empty",
            f"No version answers for {deployment.name!r} yet.",
            hint="Release one with `everloop release start`, or export a version by its ref.",
        )
    return view.get(ModelVersion, deployment.champion), deployment.name


def _require_exportable(view: View, version: ModelVersion) -> None:
    require_proven(view, version)
    require_served(version)
    require_pass(view, version)
