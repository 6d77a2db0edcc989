"""What the device runs, and how it changes: pulled, verified, tried, and taken back if it fails.

One file, ``agent.json``, says which bundle is in force; it is replaced whole. So the device, killed
at any moment, starts again with the bundle before or the one after, never with half of one. A
bundle that was not confirmed healthy is tried twice and then left for good.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional

from everloop.edge.device.bundle import read_sealed
from everloop.edge.device.control import Control
from everloop.edge.device.files import interpreter, read_json, write_json, write_whole
from everloop.edge.device.refusal import EdgeError

MOST_TRIES = 2
VERIFY_S = 120.0
KEPT_REFUSALS = 20
_FRESH: Dict[str, Any] = {
    "epoch": 0,
    "offered": None,
    "current": None,
    "previous": None,
    "trying": False,
    "tries": 0,
    "refused": [],
}


class Updates:
    """The bundles of one device.

    Args:
        folder: The device's state folder.
        key: The only key whose bundles count.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._key = key
        (folder / "bundles").mkdir(parents=True, exist_ok=True)
        self.told: Dict[str, Any] = {**_FRESH, **(read_json(folder / "agent.json") or {})}

    @property
    def current(self) -> Optional[str]:
        """SHA-256 of the bundle in force."""
        digest: Optional[str] = self.told["current"]
        return digest

    def path(self, digest: str) -> Path:
        """Return where the bundle of a digest lies."""
        return self._folder / "bundles" / f"{digest.partition(':')[2]}.pyz"

    def adopt(self, archive: Path) -> None:
        """Take the bundle with which the device came as the first one in force.

        Raises:
            EdgeError: it does not verify.
        """
        if self.current is not None and self.path(self.current).exists():
            return
        read_sealed(archive, self._key)
        data = archive.read_bytes()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        write_whole(self.path(digest), data)
        self._write(current=digest)

    def begin_try(self) -> str:
        """Return the digest to start with; go back first when it was tried often enough.

        Raises:
            EdgeError: ``edge.no_bundle`` when there is none.
        """
        if self.told["trying"]:
            if self.told["tries"] >= MOST_TRIES:
                self.go_back("edge.unhealthy")
            else:
                self._write(tries=self.told["tries"] + 1)
        if self.current is None:
            raise EdgeError(
                "edge.no_bundle", "The device has no bundle.", "Start it from a .pyz file."
            )
        return self.current

    def confirm(self) -> None:
        """Say that the bundle in force is healthy."""
        if self.told["trying"]:
            self._write(trying=False, tries=0)
            self._clean()

    def go_back(self, reason: str) -> None:
        """Leave the bundle in force for good, and go back to the one before."""
        self._write(
            current=self.told["previous"],
            previous=None,
            trying=False,
            tries=0,
            refused=self._refusing(self.current, reason),
        )
        self._clean()

    def take(self, offer: Dict[str, Any], control: Control) -> bool:
        """Follow an offer that verified; return whether another bundle is in force now.

        Raises:
            EdgeError: ``edge.offer_old``, ``edge.downgrade``, ``edge.offline``, or why the bundle
                was refused.
        """
        digest, epoch = offer["digest"], offer["epoch"]
        self._require_newer(digest, epoch)
        if digest in (None, self.current) or digest in self._refused():
            self._write(epoch=epoch, offered=digest)
            return False
        self._require_no_downgrade(offer)
        path = self._fetch(offer, control)
        try:
            self._prove(path, offer)
        except EdgeError as error:
            path.unlink()
            self._write(epoch=epoch, offered=digest, refused=self._refusing(digest, error.code))
            raise
        # This file is the step from one bundle to the other.
        self._write(
            epoch=epoch,
            offered=digest,
            previous=self.current,
            current=digest,
            trying=True,
            tries=0,
        )
        return True

    def refusals(self) -> List[Dict[str, str]]:
        """Return the bundles that were tried and left, as the control plane is told."""
        found: List[Dict[str, str]] = self.told["refused"]
        return found

    def _require_newer(self, digest: Optional[str], epoch: int) -> None:
        is_changed = epoch == self.told["epoch"] and digest != self.told["offered"]
        if epoch < self.told["epoch"] or (is_changed and self.told["offered"] is not None):
            raise EdgeError(
                "edge.offer_old",
                f"The offer is of epoch {epoch}; this device has seen {self.told['epoch']}.",
                "Nothing was changed. Somebody may replay old answers of the server.",
            )

    def _require_no_downgrade(self, offer: Dict[str, Any]) -> None:
        if self.current is None or offer.get("rollback") is True:
            return
        present = read_sealed(self.path(self.current), self._key).manifest
        if offer["number"] < present["number"]:
            raise EdgeError(
                "edge.downgrade",
                f"Version number {offer['number']} is older than {present['number']}, and the "
                "offer is no rollback.",
                "Nothing was changed.",
            )

    def _fetch(self, offer: Dict[str, Any], control: Control) -> Path:
        """Fetch a bundle, going on where a download before was cut."""
        path = self.path(offer["digest"])
        part = path.with_suffix(".part")
        size = part.stat().st_size if part.exists() else 0
        if size > offer["size_bytes"]:
            part.unlink()
            size = 0
        with part.open("ab") as file:
            while size < offer["size_bytes"]:
                data = control.fetch(offer["digest"], size)["data"]
                if not data:
                    break
                size += file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if "sha256:" + hashlib.sha256(part.read_bytes()).hexdigest() != offer["digest"]:
            part.unlink()
            raise EdgeError(
                "edge.wrong_digest",
                "The bytes that came are not the bundle that was offered.",
                "The device fetches it again when it asks next.",
            )
        part.replace(path)
        return path

    def _prove(self, path: Path, offer: Dict[str, Any]) -> None:
        """Verify a bundle, and let it repeat its golden answers in a process of its own."""
        manifest = read_sealed(path, self._key).manifest
        if manifest["number"] != offer["number"]:
            raise EdgeError(
                "edge.offer_forged", "The bundle is not of the version offered.", "Look at both."
            )
        command = [*interpreter(), str(path), "verify", "--key", self._key.hex()]
        try:
            done = subprocess.run(  # noqa: S603 -- the file has just been verified
                command, capture_output=True, timeout=VERIFY_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise EdgeError(
                "edge.unhealthy", "The bundle did not verify itself in time.", "It is left."
            ) from error
        if done.returncode != 0:
            told = done.stderr.decode("utf-8", "replace")
            code = told.partition("[")[2].partition("]")[0] or "edge.unhealthy"
            raise EdgeError(code[:100], f"The bundle fails here: {told[-300:]}", "It is left.")

    def _refused(self) -> List[str]:
        return [refusal["digest"] for refusal in self.told["refused"]]

    def _refusing(self, digest: Optional[str], reason: str) -> List[Dict[str, str]]:
        kept = [refusal for refusal in self.told["refused"] if refusal["digest"] != digest]
        fresh = [] if digest is None else [{"digest": digest, "reason": reason}]
        return (kept + fresh)[-KEPT_REFUSALS:]

    def _write(self, **changes: Any) -> None:
        self.told = {**self.told, **changes}
        write_json(self._folder / "agent.json", self.told)
        if "current" in changes and self.current is not None:
            _point(self._folder / "current.pyz", self.path(self.current))

    def _clean(self) -> None:
        """Remove bundles that are neither in force nor the one to go back to."""
        kept = {self.path(d) for d in (self.told["current"], self.told["previous"]) if d}
        for path in (self._folder / "bundles").iterdir():
            if path not in kept:
                path.unlink()


def _point(link: Path, target: Path) -> None:
    """Let a name always lead to the bundle in force, for programs that start it by themselves."""
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        draft.symlink_to(os.path.relpath(target, link.parent))
        draft.replace(link)
    except OSError:  # a system without links: the agent itself needs none
        return
