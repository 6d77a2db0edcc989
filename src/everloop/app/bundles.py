"""Makes the sealed bundle of a model version out of the registry and its gate report."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from everloop.core.canonical import canonical_json
from everloop.core.digest import Digest, content_digest
from everloop.core.errors import IntegrityError
from everloop.core.ids import Id
from everloop.data.contract import read_contract
from everloop.data.model import DatasetVersion
from everloop.gate.golden import GoldenRow
from everloop.kernel.safe_load import require_format
from everloop.kernel.unit_of_work import View
from everloop.registry.bounds import output_bounds
from everloop.registry.evidence import (
    EVALUATOR,
    Predicate,
    ServingProof,
    newest_report,
    verify_report,
)
from everloop.registry.formats import native_files, require_served
from everloop.registry.masking import require_known_masks
from everloop.registry.model import ModelVersion
from everloop.release.model import Deployment
from everloop.serve.bundle import Bundle, GoldenAnswer, Verdict, read_sealed, write_bundle
from everloop.serve.protocol import InputField

BOUNDARY, BACKGROUND, REFERENCE, PROFILE, CONTRACT = (
    "boundary.npy", "background.npy", "reference.json", "profile.json", "contract.json",
)  # fmt: skip


def seal_bundle(view: View, deployment: Deployment, version_id: Id, folder: Path) -> None:
    """Write the bundle of a version for a deployment; one that is there is left alone.

    Raises:
        EverloopError: as `write_sealed`.
    """
    if not folder.exists():
        write_sealed(view, view.get(ModelVersion, version_id), folder, deployment.name)


def mend_bundle(view: View, deployment: Deployment, version_id: Id, folder: Path) -> bool:
    """Write a bundle again if it is not as it was sealed; return whether it was.

    What lies there is kept until the new one is written.

    Raises:
        EverloopError: as `write_sealed`.
        OSError: the folder cannot be replaced.
    """
    try:
        read_sealed(folder, view.services.signers[EVALUATOR].public_key)
    except IntegrityError:
        fresh = folder.with_name(f".{folder.name}.mended")
        shutil.rmtree(fresh, ignore_errors=True)
        write_sealed(view, view.get(ModelVersion, version_id), fresh, deployment.name)
        shutil.rmtree(folder)
        fresh.rename(folder)
        return True
    return False


def write_sealed(view: View, version: ModelVersion, folder: Path, deployment: str = "") -> Bundle:
    """Write the bundle of a version and return its description; no folder may be there.

    Args:
        view: The registry.
        version: The version.
        folder: Where; it appears complete or not at all.
        deployment: Where it is served; empty for a bundle that anybody may serve.

    Raises:
        NotFound: the version's bytes are gone.
        IntegrityError: its bytes or its gate report do not verify.
        InvalidInput: ``signature.unknown``, ``log.mask_unknown``, or the data's contract is none.
        UnsafeArtifact: ``model.not_servable`` or ``artifact.not_served``; or
            ``artifact.format_refused`` by the policy.
    """
    require_served(version)
    require_known_masks(view, version.name)
    told = _report(view, version)
    proof = told.serving if told else None
    format_name, digests = _files(version, proof)
    require_format(view.services.policy, format_name)
    attached = _attachments(view, version, proof)
    minimum, maximum = output_bounds(version.signature)
    signature = version.signature
    bundle = Bundle(
        deployment=deployment,
        model=version.name,
        version_id=version.id,
        number=version.number,
        semver=version.version,
        artifact=version.artifact,
        format=format_name,
        task=signature.task,
        inputs=tuple(
            msgspec.convert(msgspec.to_builtins(field), InputField) for field in signature.inputs
        ),
        output_name=signature.output.name,
        output_minimum=minimum,
        output_maximum=maximum,
        golden=_golden(view, told.golden if told else None),
        trusted_types=view.services.policy.trusted_types,
        files=digests,
        runtime=proof.runtime if proof else "",
        verdict=msgspec.convert(proof, Verdict, from_attributes=True) if proof else None,
        outputs=tuple(field.name for field in signature.outputs),
        masked=personal_inputs(view, version),
        weak_isolation=view.services.policy.weak_isolation,
        boundary=BOUNDARY if BOUNDARY in attached else "",
        background=BACKGROUND if BACKGROUND in attached else "",
        reference=REFERENCE if REFERENCE in attached else "",
        profile=PROFILE if PROFILE in attached else "",
        contract=CONTRACT if CONTRACT in attached else "",
        attachments={name: content_digest(data) for name, data in attached.items()},
    )
    files = {path: view.services.blobs.get(digest) for path, digest in digests.items()}
    write_bundle(folder, bundle, {**files, **attached}, view.services.signers[EVALUATOR])
    return bundle


def _report(view: View, version: ModelVersion) -> Predicate | None:
    """Return what the newest report states; a waived version may have none."""
    report = newest_report(view, version)
    return verify_report(view, report, version) if report is not None else None


def _files(version: ModelVersion, proof: ServingProof | None) -> tuple[str, dict[str, Digest]]:
    """Return the format and the files that the chosen runtime loads."""
    if proof is not None and proof.files:
        return proof.format, proof.files
    return native_files(version, {entry.path: entry.digest for entry in version.files})


def _attachments(view: View, version: ModelVersion, proof: ServingProof | None) -> dict[str, bytes]:
    """Return what a server needs beside the model, by file name."""
    blobs = view.services.blobs
    trained = _trained_on(view, version)
    wanted = {
        PROFILE: trained.profile if trained else None,
        BOUNDARY: proof.boundary if proof else None,
        BACKGROUND: proof.background if proof else None,
        REFERENCE: version.reference,
    }
    found = {name: blobs.get(digest) for name, digest in wanted.items() if digest is not None}
    contract = _contract(view, version)
    return {**found, CONTRACT: canonical_json(contract)} if contract is not None else found


def personal_inputs(view: View, version: ModelVersion) -> tuple[str, ...]:
    """Return the inputs of a version that its data's contract calls personal."""
    told = _contract(view, version)
    columns = read_contract(told).columns if told is not None else {}
    return tuple(
        field.name
        for field in version.signature.inputs
        if field.name in columns and columns[field.name].personal
    )


def _contract(view: View, version: ModelVersion) -> dict[str, object] | None:
    """Return the contract of the data that the version was trained on, if there is one."""
    trained = _trained_on(view, version)
    datasets = view.settings().get("datasets")
    dataset = datasets.get(trained.name) if trained and isinstance(datasets, dict) else None
    contract = dataset.get("contract") if isinstance(dataset, dict) else None
    return contract if isinstance(contract, dict) else None


def _trained_on(view: View, version: ModelVersion) -> DatasetVersion | None:
    key = version.dataset_version
    return None if key is None else view.find(DatasetVersion, key)


def _golden(view: View, stored: Digest | None) -> tuple[GoldenAnswer, ...]:
    """Return the golden answers that a report names; without one there are none."""
    if stored is None:
        return ()
    rows = msgspec.json.decode(view.services.blobs.get(stored), type=tuple[GoldenRow, ...])
    return tuple(GoldenAnswer(inputs=row.inputs, expected=row.expected) for row in rows)
