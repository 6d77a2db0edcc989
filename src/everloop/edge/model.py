"""The record of edge bundles."""

from __future__ import annotations

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.records import Record, record
from everloop.edge.building import Parity


@record("edge_bundle", unique=(("project", "digest"),), index=(("project", "version"),))
class EdgeBundle(Record, frozen=True, kw_only=True):
    """One file that answers with a model version on a device.

    Attributes:
        model: The model.
        version: The version that it answers with.
        name: The model's name when it was sealed.
        number: The version's number; counts the versions of the model.
        semver: Its semantic version.
        artifact: The version's artifact digest, to which its evidence is bound.
        digest: SHA-256 of the file, by which devices know it.
        content: Under which the file is stored.
        size_bytes: How large it is.
        key: The public key, in hex, that its manifest is signed with.
        parity: How its answers compare with the training framework's.
        masked: Inputs that devices never log.
        evidence: ``kind:id`` of the gate report or waiver that admitted the version.
        reference: Blob of the reference in whose bins devices count; None where there is none.
    """

    project: ProjectId
    model: Id
    version: Id
    name: str
    number: int
    semver: str
    artifact: Digest
    digest: Digest
    content: Digest
    size_bytes: int
    key: str
    parity: Parity
    masked: tuple[str, ...]
    evidence: str
    reference: Digest | None
    at: Instant
    by: ActorId
