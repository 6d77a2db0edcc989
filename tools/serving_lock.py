"""Cuts out of uv.lock what a serving image installs: `python -m tools.serving_lock` writes it.

The image's lock travels inside the package, since whoever exports an image has no uv.lock. For each
Python and each format of models it holds exactly the distributions that serving imports, with the
hashes of their Linux wheels.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "uv.lock"
FILE = ROOT / "src" / "everloop" / "export" / "serving_lock.json"
PYTHONS = ("3.11", "3.12", "3.13")
# What `everloop.serve` imports whatever the model.
BASE = ("blake3", "cryptography", "httptools", "msgspec", "numpy", "uvloop")
# What a model's format needs beside that. The second part names requirements that are left out:
# the C libraries of the tree packages are called without the Python around them.
FORMATS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "lightgbm": (("lightgbm",), frozenset({"scipy", "narwhals", "numpy"})),
    "xgboost": (("xgboost-cpu",), frozenset({"scipy", "numpy"})),
    "onnx": (("onnxruntime",), frozenset()),
    "sklearn": (("scikit-learn", "skops"), frozenset()),
    "torch": (("torch", "safetensors"), frozenset()),
    "pyfunc": ((), frozenset()),
}
# What a server uses only where it is asked to.
ALSO = {
    # Fetches a bundle from object storage, where a platform names an address instead of a folder.
    "storage": ("obstore",),
    # Answers over gRPC.
    "grpc": ("grpcio", "protobuf"),
    # Sends traces to a collector.
    "otel": ("opentelemetry-exporter-otlp-proto-http", "opentelemetry-sdk"),
}
_WHEEL = re.compile(r"-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl$")


def serving_lock(lock: dict[str, Any]) -> dict[str, Any]:
    """Return the file's content: by Python, the groups by name and the distributions."""
    found: dict[str, Any] = {}
    for python in PYTHONS:
        chosen = _Chosen(lock, python)
        groups = {"base": chosen.closure(BASE)}
        groups |= {name: chosen.closure(roots) for name, roots in ALSO.items()}
        for name, (roots, left_out) in FORMATS.items():
            groups[name] = chosen.closure(roots, left_out)
        names = sorted({name for group in groups.values() for name in group})
        found[python] = {"groups": groups, "distributions": {n: chosen.told(n) for n in names}}
    return found


class _Chosen:
    """The packages of the lock that hold for one Python on Linux."""

    def __init__(self, lock: dict[str, Any], python: str) -> None:
        self.python = python
        self.environment = {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform_machine": "x86_64",
            "extra": "",
        }
        self.packages: dict[str, dict[str, Any]] = {}
        for package in lock["package"]:
            markers = package.get("resolution-markers")
            if markers is None or any(self.holds(marker) for marker in markers):
                self.packages[package["name"]] = package

    def holds(self, marker: str | None) -> bool:
        return marker is None or Marker(marker).evaluate(self.environment)

    def closure(self, roots: tuple[str, ...], left_out: frozenset[str] = frozenset()) -> list[str]:
        """Return the roots and all that they require, without what is left out."""
        found: set[str] = set()
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            if name in found or name in left_out:
                continue
            found.add(name)
            waiting += self._required(name)
        return sorted(found)

    def _required(self, name: str) -> Iterator[str]:
        package = self.packages[name]
        for wanted in package.get("dependencies", []):
            if self.holds(wanted.get("marker")):
                yield wanted["name"]
                extras = self.packages[wanted["name"]].get("optional-dependencies", {})
                for extra in wanted.get("extra", []):
                    yield from (
                        one["name"] for one in extras[extra] if self.holds(one.get("marker"))
                    )

    def told(self, name: str) -> dict[str, Any]:
        """Return version and hashes of a distribution."""
        package = self.packages[name]
        hashes = sorted(
            wheel["hash"] for wheel in package.get("wheels", []) if self._fits(wheel["url"])
        )
        if not hashes:
            message = f"{name} {package['version']} has no wheel for Python {self.python} on Linux"
            raise LookupError(message)
        return {"version": package["version"], "hashes": hashes}

    def _fits(self, url: str) -> bool:
        match = _WHEEL.search(url)
        if match is None:
            return False
        on_linux = match["platform"] == "any" or "manylinux" in match["platform"]
        machine = match["platform"] == "any" or match["platform"].endswith(("x86_64", "aarch64"))
        tag = "cp" + self.python.replace(".", "")
        if match["abi"] == "abi3":
            oldest = match["python"].removeprefix("cp3")
            by_python = oldest.isdigit() and Version(f"3.{oldest}") <= Version(self.python)
        else:
            by_python = match["abi"] in {tag, "none"} and (
                match["python"] in {tag, "py3", "py2.py3"}
            )
        return on_linux and machine and by_python


def render(content: dict[str, Any]) -> str:
    """Return the file's text."""
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Write the file."""
    FILE.write_text(render(serving_lock(tomllib.loads(LOCK.read_text("utf-8")))), "utf-8")
    print(f"{FILE.relative_to(ROOT)}: {FILE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
