"""The software bill of materials of an image: CycloneDX 1.6, with the model as a component.

No time and no random number stands in it: the same image has the same bill.
"""

from __future__ import annotations

import uuid
from typing import Final

import msgspec

from everloop.core.digest import sha256_digest
from everloop.export.lock import Locked
from everloop.export.model import Subject
from everloop.export.wheel import NAME, Wheel, installed_version

_NAMESPACE: Final = uuid.UUID("5b1c4a3e-7c1c-5f0e-9a55-0d8c54a1f6d2")
_WHERE: Final = "https://pypi.org/project/{name}/{version}/"
Component = dict[str, object]


def sbom(
    subject: Subject | None, distributions: tuple[Locked, ...], wheel: Wheel, title: str
) -> str:
    """Return the bill as JSON."""
    name, _, version = title.partition(":")
    root = f"pkg:oci/{name}@{version}"
    parts = [_own(wheel), *(_distribution(one) for one in distributions)]
    if subject is not None:
        parts.append(_model(subject))
    body: Component = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [
                    {"type": "application", "name": "everloop", "version": installed_version()}
                ]
            },
            "component": {"type": "container", "bom-ref": root, "name": name, "version": version},
        },
        "components": parts,
        "dependencies": [
            {"ref": root, "dependsOn": [part["bom-ref"] for part in parts]},
        ],
    }
    # Named by its content, so that two equal bills are one.
    digest = sha256_digest(msgspec.json.encode(body))
    told = {"bomFormat": "CycloneDX", "specVersion": "1.6"}
    told["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}"
    return msgspec.json.format(msgspec.json.encode(told | body), indent=2).decode() + "\n"


def _own(wheel: Wheel) -> Component:
    version = installed_version()
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{NAME}@{version}",
        "name": NAME,
        "version": version,
        "purl": f"pkg:pypi/{NAME}@{version}",
        "hashes": [_hash(wheel.digest)],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }


def _distribution(one: Locked) -> Component:
    purl = f"pkg:pypi/{one.name}@{one.version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": one.name,
        "version": one.version,
        "purl": purl,
        # One hash for each wheel: which of them is installed depends on the processor.
        "externalReferences": [
            {
                "type": "distribution",
                "url": _WHERE.format(name=one.name, version=one.version),
                "hashes": [_hash(digest) for digest in one.hashes],
            }
        ],
    }


def _model(subject: Subject) -> Component:
    bundle = subject.bundle
    names = ", ".join(field.name for field in bundle.inputs)
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{bundle.model}@{bundle.semver}",
        "name": bundle.model,
        "version": bundle.semver,
        "components": [
            {"type": "file", "name": name, "hashes": [_hash(sha256_digest(data))]}
            for name, data in sorted(subject.files.items())
        ],
        "modelCard": {
            "modelParameters": {
                "task": bundle.task,
                "inputs": [{"format": names}],
                "outputs": [{"format": bundle.output_name}],
            }
        },
        "properties": [
            {"name": "everloop:version_id", "value": bundle.version_id},
            {"name": "everloop:artifact", "value": bundle.artifact},
            {"name": "everloop:format", "value": bundle.format},
            {"name": "everloop:seal", "value": subject.seal},
            {"name": "everloop:public_key", "value": subject.public_key},
        ],
    }


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}
