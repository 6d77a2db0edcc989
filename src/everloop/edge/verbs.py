"""The verb that seals a model version as one file for devices."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.digest import Digest
from everloop.core.errors import InvalidInput
from everloop.core.ports import where
from everloop.core.records import kind_of
from everloop.edge.building import Parity, Source, build_bundle
from everloop.edge.model import EdgeBundle
from everloop.edge.queries import EdgeBundleView, view_bundle
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import verb
from everloop.registry.evidence import EVALUATOR, newest_report, require_pass, verify_report
from everloop.registry.formats import require_served
from everloop.registry.lookup import resolve_model
from everloop.registry.model import ModelVersion
from everloop.registry.proof import require_proven

RefText = Annotated[str, Meta(min_length=1, max_length=300)]


class BuildEdge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version to seal for devices.

    Attributes:
        version: Ref or id of the version.
        mask: Inputs that devices must never log, beside those of ``models.<name>.log.masked``.
    """

    version: RefText
    mask: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=1_000)] = ()


class _Log(Struct, frozen=True, kw_only=True):
    """What of ``models.<name>.log`` concerns devices."""

    masked: tuple[str, ...] = ()


class _Sealed(Struct, frozen=True, kw_only=True):
    version: ModelVersion
    digest: Digest
    content: Digest
    size_bytes: int
    parity: Parity
    masked: tuple[str, ...]


def _build(ask: BuildEdge, desk: Desk) -> _Sealed:
    with desk.read() as view:
        version = resolve_model(view, ask.version)
        require_proven(view, version)
        require_served(version)
        source = _source(view, version, ask.mask)
    services = desk.services
    built = build_bundle(source, services.blobs, services.policy, services.signers[EVALUATOR])
    return _Sealed(
        version=version,
        digest=built.digest,
        content=services.blobs.put(built.data),
        size_bytes=len(built.data),
        parity=built.parity,
        masked=source.masked,
    )


@verb("edge.build", permission="edge:write", prepare=_build)
def build_edge(ask: BuildEdge, work: Work, sealed: _Sealed) -> EdgeBundleView:
    """Seal a version that passed its gate as one file that answers on a device.

    The device's own code answers thousands of rows first, and must answer as the training framework
    does. The same version gives the same file.

    Raises:
        NotFound: the version does not exist.
        InvalidInput: ``edge.format_unsupported``, ``edge.model_unsupported`` or
            ``edge.mask_unknown``.
        UnsafeArtifact: ``artifact.not_served``, or ``model.not_servable``.
        GateFailed: ``gate.missing``, ``gate.failed``, or ``edge.parity`` when a device would answer
            otherwise.
    """
    del ask
    version = sealed.version
    evidence = require_pass(work, version)
    known = work.first(EdgeBundle, *where(digest=sealed.digest))
    if known is not None:
        return view_bundle(known)
    bundle = work.insert(
        EdgeBundle(
            id=work.new_id(),
            project=work.project,
            model=version.model,
            version=version.id,
            name=version.name,
            number=version.number,
            semver=version.version,
            artifact=version.artifact,
            digest=sealed.digest,
            content=sealed.content,
            size_bytes=sealed.size_bytes,
            key=work.services.signers[EVALUATOR].public_key.hex(),
            parity=sealed.parity,
            masked=sealed.masked,
            evidence=f"{kind_of(evidence).name}:{evidence.id}",
            reference=version.reference,
            at=work.now,
            by=work.caller.actor,
        )
    )
    work.touch(f"edge_bundle:{bundle.id}", f"model_version:{version.id}")
    work.link(f"edge_bundle:{bundle.id}", "sealed", f"model_version:{version.id}")
    work.link(f"edge_bundle:{bundle.id}", "allowed_by", bundle.evidence)
    return view_bundle(bundle)


def _source(view: View, version: ModelVersion, mask: tuple[str, ...]) -> Source:
    names = {field.name for field in version.signature.inputs}
    unknown = sorted(set(mask) - names)
    if unknown:
        raise InvalidInput(
            "edge.mask_unknown",
            f"{version.name}@{version.version} has no input {unknown[0][:60]!r} to mask.",
            hint=f"Its inputs are {', '.join(sorted(names))[:300]}.",
        )
    configured = view.model_settings(version.name, "log", _Log)
    evidence = require_pass(view, version)
    report = newest_report(view, version)
    golden = None if report is None else verify_report(view, report, version).golden
    return Source(
        version=version,
        golden=None if golden is None else view.services.blobs.get(golden),
        evidence=f"{kind_of(evidence).name}:{evidence.id}",
        masked=tuple(sorted({*mask, *names.intersection(configured.masked)})),
    )
