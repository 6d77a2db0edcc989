"""The state of the code a run ran with: its commit, and what was changed since."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import msgspec

from everloop.core.digest import Digest, content_digest
from everloop.track.masking import mask_text

MAX_PATCH_BYTES: Final = 1_000_000
_GIT_TIMEOUT_S: Final = 5.0
# Beyond this much, new files count by name and size only: a folder of data is no code.
_MAX_UNTRACKED_BYTES: Final = 32 * 1024 * 1024
_MAX_UNTRACKED_FILES: Final = 500
_MAX_NEW_FILES: Final = 100
_MAX_NEW_FILE_BYTES: Final = 100_000
# Files of these names exist to hold secrets; not even masked do they belong into a record.
_PRIVATE: Final = (
    ".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "*.jks", "id_*", ".netrc",
    ".pgpass", ".npmrc", ".pypirc", "*credential*", "*secret*", "*token*", "*password*",
)  # fmt: skip


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the git repository.

    Attributes:
        commit: Full hex name of HEAD.
        branch: Its branch, None when detached.
        patch: Digest over the changes since that commit and over new files; None when clean.
    """

    commit: str
    branch: str | None
    patch: Digest | None


def read_code(root: Path) -> Code | None:
    """Return the state of the git repository around the folder, or None outside one."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    branch = _git(root, "symbolic-ref", "--short", "-q", "HEAD")
    return Code(
        commit=commit.decode().strip(),
        branch=branch.decode().strip() if branch else None,
        patch=_patch_digest(root),
    )


def read_patch(root: Path) -> bytes:
    """Return what was changed since the commit, as a patch with secrets masked; empty when clean.

    New text files that git does not ignore are in it, those whose names speak of secrets only by
    name. It ends with a line that says so where it would be longer than a megabyte.
    """
    tracked = _git(root, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color") or b""
    changes = _cut_private(tracked.decode(errors="replace"))
    parts = [mask_text(changes[:MAX_PATCH_BYTES])]
    size, top, new = len(changes), _top(root), _untracked(root)
    for name in new[:_MAX_NEW_FILES]:
        if size > MAX_PATCH_BYTES:
            break
        part = _new_file(top, name)
        size += len(part)
        parts.append(mask_text(part))
    if len(new) > _MAX_NEW_FILES:
        parts.append(f"# everloop: {len(new) - _MAX_NEW_FILES} more new files are left out\n")
    text = "".join(parts)
    if size <= MAX_PATCH_BYTES:
        return text.encode()
    whole = text[:MAX_PATCH_BYTES].rpartition("\n")[0]
    return f"{whole}\n# everloop: the rest of {size:,} characters is left out\n".encode()


def _cut_private(patch: str) -> str:
    """Leave out the changes of files whose names speak of secrets."""
    kept = []
    for number, part in enumerate(patch.split("diff --git ")):
        head, _, _ = part.partition("\n")
        if number == 0:
            kept.append(part)
        elif _is_private(head.rpartition(" b/")[2].strip('"')):
            kept.append(f"diff --git {head}\n# everloop: left out, its name speaks of secrets\n")
        else:
            kept.append(f"diff --git {part}")
    return "".join(kept)


def _new_file(top: Path, name: str) -> str:
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n"
    path = top / name
    if _is_private(name):
        return f"{head}# everloop: left out, its name speaks of secrets\n"
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_NEW_FILE_BYTES:
            return f"{head}# everloop: left out, it is large or a link\n"
        lines = path.read_bytes().decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return f"{head}# everloop: left out, it is no text\n"
    added = "".join(f"+{line}\n" for line in lines)
    return f"{head}--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n{added}"


def _is_private(name: str) -> bool:
    return any(fnmatch(name.rpartition("/")[2].lower(), pattern) for pattern in _PRIVATE)


def _patch_digest(root: Path) -> Digest | None:
    changes = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv") or b""
    listed = _untracked(root)
    if not changes and not listed:
        return None
    top, left = _top(root), _MAX_UNTRACKED_BYTES
    hasher = hashlib.blake2b(changes)
    for number, name in enumerate(listed):
        hasher.update(b"\0" + os.fsencode(name) + b"\0")
        path = top / name
        if not path.is_file():
            continue
        size = path.stat().st_size
        left -= size
        is_read = left >= 0 and number < _MAX_UNTRACKED_FILES
        hasher.update(path.read_bytes() if is_read else str(size).encode())
    return content_digest(hasher.digest())


def _untracked(root: Path) -> list[str]:
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--full-name") or b""
    return [os.fsdecode(name) for name in sorted(filter(None, listed.split(b"\0")))]


def _top(root: Path) -> Path:
    top = _git(root, "rev-parse", "--show-toplevel")
    return Path(os.fsdecode((top or b".").strip()))


def _git(root: Path, *arguments: str) -> bytes | None:
    program = shutil.which("git")
    if program is None or not root.is_dir():
        return None
    try:
        done = subprocess.run(  # noqa: S603 -- a fixed program with fixed arguments
            [program, *arguments],
            cwd=root,
            capture_output=True,
            check=False,
            timeout=_GIT_TIMEOUT_S,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
