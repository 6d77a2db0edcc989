"""Makes the sealed bundle of a model version out of the registry and its gate report."""

from __future__ import annotations

from pathlib import Path

import msgspec

from everloop.core.ids import Id
from everloop.gate.golden import GoldenRow
from everloop.kernel.unit_of_work import View
from everloop.registry.evidence import EVALUATOR, newest_report, verify_report
from everloop.registry.formats import native_files
from everloop.registry.model import ModelVersion
from everloop.release.model import Deployment
from everloop.serve.bundle import Bundle, GoldenAnswer, write_bundle
from everloop.serve.protocol import InputField

# An answer this far outside the range seen in training counts as invalid: the range's own width.
OUTPUT_MARGIN = 1.0


def seal_bundle(view: View, deployment: Deployment, version_id: Id, folder: Path) -> None:
    """Write the bundle of a version; one that is there is left alone.

    Raises:
        NotFound: the version or its bytes are gone.
        IntegrityError: its bytes or its gate report do not verify.
        InvalidInput: ``signature.unknown``.
        UnsafeArtifact: ``model.not_servable``.
    """
    if folder.exists():
        return
    version = view.get(ModelVersion, version_id)
    blobs = view.services.blobs
    kept = {entry.path: entry.digest for entry in version.files}
    format_name, digests = native_files(version, kept)
    files = {path: blobs.get(digest) for path, digest in digests.items()}
    minimum, maximum = _bounds(version)
    bundle = Bundle(
        deployment=deployment.name,
        model=version.name,
        version_id=version.id,
        number=version.number,
        semver=version.version,
        artifact=version.artifact,
        format=format_name,
        task=version.signature.task,
        inputs=tuple(
            msgspec.convert(msgspec.to_builtins(field), InputField)
            for field in version.signature.inputs
        ),
        output_name=version.signature.output.name,
        output_minimum=minimum,
        output_maximum=maximum,
        golden=_golden(view, version),
        trusted_types=view.services.policy.trusted_types,
        files=digests,
    )
    write_bundle(folder, bundle, files, view.services.signers[EVALUATOR])


def _bounds(version: ModelVersion) -> tuple[float | None, float | None]:
    low, high = version.signature.output.minimum, version.signature.output.maximum
    if low is None or high is None:
        return low, high
    if version.signature.task == "classification":
        return low, high
    margin = (high - low) * OUTPUT_MARGIN
    return low - margin, high + margin


def _golden(view: View, version: ModelVersion) -> tuple[GoldenAnswer, ...]:
    """Return the golden answers of the newest report; a waived version without one has none."""
    report = newest_report(view, version)
    if report is None:
        return ()
    told = verify_report(view, report, version)
    if told.golden is None:
        return ()
    rows = msgspec.json.decode(view.services.blobs.get(told.golden), type=tuple[GoldenRow, ...])
    return tuple(GoldenAnswer(inputs=row.inputs, expected=row.expected) for row in rows)
