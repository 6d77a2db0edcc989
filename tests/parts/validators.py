"""The validators that judge exported files: real schemas and linters, in a cache folder.

`make parts` installs the distributions without what they require, since only their data is read:
the JSON schemas of Kubernetes, of Compose and of CycloneDX, the generated models of KServe's
resources, and hadolint.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, FormatChecker
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from tests.parts.found import VALIDATORS, validators_folder

SCHEMAS = Path(__file__).resolve().parents[1] / "vectors" / "schemas"
KUBERNETES = "v1.37.0-local-strict"
Schema = dict[str, Any]
_PLAIN: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "object": {"type": "object"},
    "datetime": {"type": "string"},
}


class Validators:
    """Says what is wrong with a file that was exported; nothing when all is well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kubernetes = folder / "kubernetes_validate" / "kubernetes-json-schema" / KUBERNETES
        # Remembered: the definitions of Kubernetes are two megabytes.
        self._registry: Registry[Any] = Registry(retrieve=cache(self._retrieve))  # type: ignore[call-arg]

    def kubernetes(self, manifest: Mapping[str, Any]) -> list[str]:
        """Judge a manifest by the strict schema of its kind and version, or by ours for others."""
        group, _, version = str(manifest["apiVersion"]).rpartition("/")
        kind = str(manifest["kind"]).lower()
        if group.endswith("kserve.io"):
            return self._judge(self._kserve(f"{version.capitalize()}{manifest['kind']}"), manifest)
        own = SCHEMAS / f"{kind}-{version}.json"
        if own.exists():
            return self._judge(json.loads(own.read_text()), manifest)
        prefix = f"-{group.partition('.')[0]}" if group else ""
        return self._judge({"$ref": f"k8s:{kind}{prefix}-{version}.json"}, manifest)

    def compose(self, project: Mapping[str, Any]) -> list[str]:
        """Judge a Compose file by the schema of the Compose specification."""
        place = self.folder / "check_jsonschema" / "builtin_schemas" / "vendor"
        return self._judge(json.loads((place / "compose-spec.json").read_text()), project)

    def cyclonedx(self, bill: Mapping[str, Any]) -> list[str]:
        """Judge a bill of materials by the schema of CycloneDX 1.6."""
        place = self.folder / "cyclonedx" / "schema" / "_res"
        return self._judge(json.loads((place / "bom-1.6.SNAPSHOT.schema.json").read_text()), bill)

    def dockerfile(self, text: str) -> list[str]:
        """Judge a Dockerfile by hadolint, whatever the severity."""
        done = subprocess.run(
            [str(self.folder / "bin" / "hadolint"), "--no-color", "--format", "json", "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        found = json.loads(done.stdout or "[]")
        return [f"{one['line']}: {one['code']} {one['message']}" for one in found]

    def unit(self, folder: Path, name: str) -> list[str]:
        """Judge a unit by systemd itself; that its program is not installed here does not count."""
        done = subprocess.run(
            ["systemd-analyze", "verify", "--recursive-errors=no", str(folder / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        return [line for line in done.stderr.splitlines() if "is not executable" not in line]

    def exposure(self, folder: Path, name: str) -> float:
        """Return how exposed systemd holds a unit to be: 0 is shut in, 10 is wide open."""
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", str(folder / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        level = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
        assert level is not None, done.stdout + done.stderr
        return float(level[1])

    def _judge(self, schema: Schema, value: Mapping[str, Any]) -> list[str]:
        kind = validator_for(schema, default=Draft7Validator)
        validator = kind(schema, registry=self._registry, format_checker=FormatChecker(()))
        return [
            f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
            for error in validator.iter_errors(dict(value))
        ]

    def _retrieve(self, uri: str) -> Resource[Schema]:
        if uri.startswith("k8s:"):
            text = (self._kubernetes / uri.rpartition("/")[2].removeprefix("k8s:")).read_text()
            return Resource.from_contents(_absolute(json.loads(text)))
        place = self.folder / "cyclonedx" / "schema" / "_res"
        name = uri.rpartition("/")[2]
        return DRAFT7.create_resource(json.loads((place / name).read_text()))

    def _kserve(self, name: str) -> Schema:
        """Return the schema of a generated model: its fields, their types, and which must be."""
        types, keys, needed = _read_model(self.folder / "kserve" / "models", name)
        return {
            "type": "object",
            "properties": {keys[field]: self._typed(kind) for field, kind in types.items()},
            "required": [keys[field] for field in needed],
            "additionalProperties": False,
        }

    def _typed(self, kind: str) -> Schema:
        """Return the schema of a type as the generator names it."""
        if kind.startswith("list["):
            return {"type": "array", "items": self._typed(kind[5:-1])}
        if kind.startswith("dict("):
            inner = kind[5:-1].partition(",")[2].strip()
            return {"type": "object", "additionalProperties": self._typed(inner)}
        if kind in _PLAIN:
            return _PLAIN[kind]
        if _model_file(self.folder / "kserve" / "models", kind).exists():
            return self._kserve(kind)
        stem = kind.removeprefix("V1").lower()
        for file in (f"{stem}-v1.json", f"{stem}-meta-v1.json"):
            if (self._kubernetes / file).exists():
                return {"$ref": f"k8s:{file}"}
        return {}


def _absolute(value: Any) -> Any:
    """Return a schema whose references to files beside it are whole addresses."""
    if isinstance(value, dict):
        found = {key: _absolute(item) for key, item in value.items()}
        if isinstance(found.get("$ref"), str) and not found["$ref"].startswith(("#", "k8s:")):
            found["$ref"] = f"k8s:{found['$ref'].removeprefix('/api/')}"
        return found
    return [_absolute(item) for item in value] if isinstance(value, list) else value


def _model_file(folder: Path, name: str) -> Path:
    return folder / (re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() + ".py")


@cache
def _read_model(folder: Path, name: str) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """Read a model's source, since importing it would import the whole SDK."""
    text = _model_file(folder, name).read_text()
    tables: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known = node.targets[0].id
            if known in {"openapi_types", "attribute_map"}:
                tables[known] = ast.literal_eval(node.value)
    needed = re.findall(r"Invalid value for `(\w+)`, must not be `None`", text)
    return tables["openapi_types"], tables["attribute_map"], tuple(dict.fromkeys(needed))


@pytest.fixture(scope="session")
def validators() -> Validators:
    """Return the validators; a test that asks for them is skipped where they are missing."""
    return Validators(validators_folder())


def install_validators() -> None:
    """Install what is missing; says what it does, and what uv says when it fails."""
    folder = validators_folder()
    if (folder / "made").exists():
        return
    print(f"parts: validators into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    uv = str(Path(sys.executable).parent / "uv")
    install = [uv, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable]
    try:
        subprocess.run([*install, "--target", str(folder), *VALIDATORS], check=True)
        (folder / "made").touch()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"parts: the validators could not be installed: {error}", file=sys.stderr)
