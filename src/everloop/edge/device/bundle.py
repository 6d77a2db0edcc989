"""Opens an edge bundle: signature, digests, golden answers, and only then the model.

The manifest is signed; it names the SHA-256 of every other file. Who may sign is the key that the
device was given when it was enrolled, or ``EVERLOOP_EDGE_KEY``. Without either, the key inside the
bundle shows only that the file is whole, and ``is_pinned`` says so.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from everloop.edge.device.ed25519 import is_signed
from everloop.edge.device.graph import Graph
from everloop.edge.device.refusal import EdgeError
from everloop.edge.device.rows import Rows
from everloop.edge.device.trees import Forest

MANIFEST, SIGNATURE = "bundle/manifest.json", "bundle/manifest.sig"
MANIFEST_CONTEXT = b"everloop edge manifest 1\n"
OFFER_CONTEXT = b"everloop fleet offer 1\n"
KEY_VARIABLE = "EVERLOOP_EDGE_KEY"
LARGEST_FILE_BYTES = 512 << 20


class Sealed(NamedTuple):
    """A manifest that verified, and the files that it names."""

    manifest: Dict[str, Any]
    files: Dict[str, bytes]
    is_pinned: bool


class Bundle:
    """A verified model, ready to answer.

    Attributes:
        manifest: What was signed: model, version, inputs, files, golden rows, reference.
        is_pinned: Whether the signature was checked against a key from outside of the bundle.
    """

    def __init__(self, sealed: Sealed) -> None:
        self.manifest, self.is_pinned = sealed.manifest, sealed.is_pinned
        self.rows = Rows(sealed.manifest["inputs"])
        self._model = _open_model(sealed)

    def predict(self, rows: List[Dict[str, Any]]) -> List[Any]:
        """Return the answers to rows of inputs by name.

        Raises:
            EdgeError: ``edge.row_invalid``.
        """
        return self.answer([self.rows.to_numbers(row) for row in rows])

    def answer(self, matrix: List[List[float]]) -> List[Any]:
        """Return the answers to rows of numbers in the signature's order."""
        answers: List[Any] = self._model.predict(matrix)
        return answers

    def is_valid(self, output: Any) -> bool:
        """Tell whether an answer is a number within the bounds seen in training."""
        low, high = self.manifest["output_minimum"], self.manifest["output_maximum"]
        numbers = output if isinstance(output, list) else [output]
        return all(
            math.isfinite(number)
            and (low is None or number >= low)
            and (high is None or number <= high)
            for number in numbers
        )

    def check_golden(self) -> int:
        """Repeat the golden answers; return how many there were.

        Raises:
            EdgeError: ``edge.golden``.
        """
        golden = self.manifest["golden"]
        matrix = [[math.nan if n is None else n for n in row] for row in golden["rows"]]
        answers = self.answer(matrix) if matrix else []
        for place, (expected, found) in enumerate(zip(golden["answers"], answers)):
            if not _is_close(expected, found, golden["tolerance"]):
                raise EdgeError(
                    "edge.golden",
                    f"Golden row {place} is answered {found!r} here, and was {expected!r}.",
                    "Do not use the bundle on this machine; report its versions of libraries.",
                )
        for named in golden["named"]:
            found = self.predict([named["inputs"]])[0]
            if not _is_close(named["answer"], found, golden["tolerance"]):
                raise EdgeError(
                    "edge.golden",
                    f"A golden row is answered {found!r} here, and was {named['answer']!r}.",
                    "Do not use the bundle on this machine; report its versions of libraries.",
                )
        return len(answers) + len(golden["named"])


def own_archive() -> Path:
    """Return the file that this code runs from.

    Raises:
        EdgeError: ``edge.no_bundle`` when it runs from no bundle.
    """
    for folder in Path(__file__).resolve().parents:
        if folder.is_file():
            return folder
    raise EdgeError(
        "edge.no_bundle", "This code runs outside of a bundle.", "Run the .pyz file itself."
    )


def open_bundle(path: Path, key: Optional[bytes] = None) -> Bundle:
    """Verify a bundle and load its model.

    Args:
        path: The bundle's file.
        key: The only key whose signature counts; ``EVERLOOP_EDGE_KEY`` when None.

    Raises:
        EdgeError: ``edge.unreadable``, ``edge.signature``, ``edge.file_changed``, ``edge.golden``,
            ``edge.runtime_missing`` or ``edge.model_unreadable``.
    """
    sealed = read_sealed(path, key)
    try:
        bundle = Bundle(sealed)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EdgeError(
            "edge.model_unreadable",
            f"The bundle's model can't be read here: {type(error).__name__}: {error}.",
            "Build the bundle again, or run a newer Python.",
        ) from error
    bundle.check_golden()
    return bundle


def read_sealed(path: Path, key: Optional[bytes] = None) -> Sealed:
    """Return what a bundle holds once its signature and its digests hold.

    Raises:
        EdgeError: ``edge.unreadable``, ``edge.signature`` or ``edge.file_changed``.
    """
    pinned = pinned_key() if key is None else key
    try:
        with zipfile.ZipFile(path) as archive:
            text, signature = archive.read(MANIFEST), archive.read(SIGNATURE)
            manifest = json.loads(text)
            signer = pinned or bytes.fromhex(manifest["key"])
            if not is_signed(signer, bytes.fromhex(signature.decode()), MANIFEST_CONTEXT + text):
                raise _forged(path)
            files = _read_files(archive, manifest["files"])
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError) as error:
        raise EdgeError(
            "edge.unreadable",
            f"{path.name} is no edge bundle: {type(error).__name__}: {error}.",
            "Fetch it again, or export it again.",
        ) from error
    return Sealed(manifest, files, pinned is not None)


def pinned_key() -> Optional[bytes]:
    """Return the key of the environment, or None.

    Raises:
        EdgeError: ``edge.key_invalid``.
    """
    told = os.environ.get(KEY_VARIABLE, "")
    if not told:
        return None
    return parse_key(told)


def parse_key(told: str) -> bytes:
    """Return the 32 bytes of a key in hex.

    Raises:
        EdgeError: ``edge.key_invalid``.
    """
    try:
        key = bytes.fromhex(told)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise EdgeError(
            "edge.key_invalid",
            "A public key is 64 hexadecimal digits.",
            "`everloop fleet key` prints it.",
        )
    return key


def _read_files(archive: zipfile.ZipFile, named: Dict[str, str]) -> Dict[str, bytes]:
    present = set(archive.namelist()) - {MANIFEST, SIGNATURE}
    wrong = sorted(present ^ set(named))
    files = {}
    for name, digest in sorted(named.items()):
        if wrong or archive.getinfo(name).file_size > LARGEST_FILE_BYTES:
            break
        data = archive.read(name)
        if hashlib.sha256(data).hexdigest() != digest:
            wrong.append(name)
        files[name] = data
    if wrong or len(files) != len(named):
        raise EdgeError(
            "edge.file_changed",
            f"Files of the bundle are not what was sealed: {', '.join(wrong)[:200]}.",
            "Fetch it again; find out who changed it.",
        )
    return files


def _open_model(sealed: Sealed) -> Any:
    kind = sealed.manifest["model_kind"]
    if kind == "trees":
        return Forest(json.loads(sealed.files["bundle/model.json"]))
    if kind == "onnx":
        return Graph(sealed.files["bundle/model.onnx"], sealed.manifest["plan"])
    raise EdgeError(
        "edge.model_unreadable",
        f"The bundle's model is a {str(kind)[:40]!r}, which is not known here.",
        f"Run a newer bundle; this one is read by Python {sys.version_info[0]}.",
    )


def _is_close(expected: Any, found: Any, tolerance: float) -> bool:
    if isinstance(expected, list):
        return len(expected) == len(found) and all(
            _is_close(one, other, tolerance) for one, other in zip(expected, found)
        )
    return math.isclose(expected, found, rel_tol=tolerance, abs_tol=tolerance)


def _forged(path: Path) -> EdgeError:
    return EdgeError(
        "edge.signature",
        f"{path.name} is not signed by the expected key.",
        "Do not run it. Export it again, or correct the key that this device was given.",
    )
