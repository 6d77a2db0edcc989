"""The process in which a foreign Python function runs: locked first, then the source is read.

Run as a script by ``python -I``, never imported by the process that asks it; it needs the standard
library and numpy. After the lock there is no network, no other process, no file but the
interpreter's and its packages' to read, none to write, and no memory beyond a limit. Which of the
barriers hold on this platform is told to the parent, who decides whether they are enough.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

HEADER = struct.Struct(">BIIQ")  # 0 for numbers, 1 for a text; rows; columns; bytes that follow
MOST_TEXT = 4_000
OPEN_FILES = 64

_NO_NEW_PRIVILEGES, _SECCOMP, _DUMPABLE = 38, 22, 4  # of prctl(2)
_FILTER = 2
_USER_AND_NETWORK = 0x10000000 | 0x40000000  # CLONE_NEWUSER and CLONE_NEWNET of unshare(2)
_THREAD = 0x00010000  # CLONE_THREAD
_ALLOW, _DENY, _ABSENT, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM, ENOSYS
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # landlock(7), the same on all machines
_ALL_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_NEWEST_FILE_RIGHTS = 16
_READ_AND_RUN = 0b1101

# Calls that reach other processes, the network or the kernel's settings, by machine: the machine's
# own number, those of clone and clone3, and the denied ones. From the kernel's tables
# (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
_CALLS: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E,
        56,
        435,
        (
            *range(41, 56), 57, 58, 59, 62, 101, 129, 155, 161, 165, 166, 169, 175, 200, 234, 246,
            248, 249, 250, 272, 288, 298, 299, 304, 307, 308, 310, 311, 313, 319, 321, 322, 323,
            424, 425, 426, 427, 434, 438,
        ),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        435,
        (
            39, 40, 41, 51, 97, 104, 105, 117, 129, 130, 131, 138, 142, *range(198, 213), 217, 218,
            219, 221, 241, 242, 243, 265, 268, 269, 270, 271, 273, 279, 280, 281, 282, 424, 425,
            426, 427, 434, 438,
        ),
    ),
}  # fmt: skip


def main() -> None:
    """Lock the process, read the function, and answer until the parent hangs up."""
    asked, answers = _take_pipes()
    limits = json.loads(_receive(asked))
    # The parent hears of the barriers before it sends a line of foreign code.
    _send_text(answers, json.dumps(lock(int(limits["memory_bytes"]))))
    try:
        told = json.loads(_receive(asked))
        function = _read_function(told["source"], told["entry"])
    except BaseException as error:  # noqa: BLE001 -- foreign code: anything it raises is its error
        _send_text(answers, _describe(error))
        return
    _send_text(answers, "{}")
    while head := asked.read(HEADER.size):
        _, rows, columns, size = HEADER.unpack(head)
        matrix = np.frombuffer(asked.read(size), dtype="<f8").reshape(rows, columns)
        try:
            found = np.asarray(function(matrix.copy()), dtype="<f8")
            data = np.ascontiguousarray(found.reshape(rows, -1)).tobytes()
        except BaseException as error:  # noqa: BLE001 -- as above
            _send_text(answers, _describe(error))
            continue
        width = len(data) // 8 // max(rows, 1)
        answers.write(HEADER.pack(0, rows, width, len(data)) + data)
        answers.flush()


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes for the parent alone: what the function prints goes nowhere."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    return asked, answers


def _receive(asked: BinaryIO) -> bytes:
    return asked.read(struct.unpack(">Q", asked.read(8))[0])


def _read_function(source: str, entry: str) -> Callable[[Any], Any]:
    space: dict[str, Any] = {"__name__": "function"}
    exec(compile(source, "function.py", "exec"), space)  # noqa: S102 -- what this process is for
    found: Callable[[Any], Any] = space[entry]
    return found


def _send_text(answers: BinaryIO, text: str) -> None:
    data = text.encode("utf-8", "replace")[:MOST_TEXT]
    answers.write(HEADER.pack(1, 0, 0, len(data)) + data)
    answers.flush()


def _describe(error: BaseException) -> str:
    return json.dumps({"error": traceback.format_exception_only(error)[-1].strip()[:1_000]})


def lock(memory_bytes: int) -> dict[str, bool]:
    """Put up the barriers; return which of them hold."""
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_AS, memory_bytes),
    ):
        resource.setrlimit(kind, (most, most))
    if not sys.platform.startswith("linux"):
        return {"network": False, "files": False, "processes": False}
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_DUMPABLE, 0, 0, 0, 0)
    library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    alone = library.unshare(_USER_AND_NETWORK) == 0
    files = _lock_files(library)
    calls = _lock_calls(library)
    return {"network": calls or alone, "files": files, "processes": calls}


def _lock_files(library: ctypes.CDLL) -> bool:
    """Let files be read only below the interpreter and its packages, by Landlock."""
    version = library.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    rights = (1 << _ALL_FILE_RIGHTS.get(version, _NEWEST_FILE_RIGHTS)) - 1
    fields = [rights, *([0b11] if version >= 4 else []), *([0b11] if version >= 6 else [])]
    settings = (ctypes.c_uint64 * len(fields))(*fields)
    rules = library.syscall(_CREATE_RULESET, settings, ctypes.sizeof(settings), 0)
    if rules < 0:
        return False
    for folder in _readable():
        handle = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _READ_AND_RUN, handle)
        library.syscall(_ADD_RULE, rules, 1, rule, 0)
        os.close(handle)
    held = library.syscall(_RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return bool(held)


def _readable() -> list[str]:
    packages = str(Path(np.__file__).parents[1])
    wanted = [sys.prefix, sys.base_prefix, packages, "/usr/lib", "/usr/lib64", "/lib", "/lib64"]
    return sorted({folder for folder in wanted if folder != "/" and Path(folder).is_dir()})


def _lock_calls(library: ctypes.CDLL) -> bool:
    """Refuse the calls that reach out, by a filter of seccomp(2)."""
    known = _CALLS.get(os.uname().machine)
    if known is None:
        return False
    machine, clone, clone3, denied = known
    program = [
        (0x20, 0, 0, 4),  # load the machine
        (0x15, 1, 0, machine),
        (0x06, 0, 0, _KILL),
        (0x20, 0, 0, 0),  # load the number of the call
        (0x35, 0, 1, 0x40000000),  # numbers of the x32 interface
        (0x06, 0, 0, _DENY),
        (0x15, 0, 1, clone3),  # its flags lie in memory, out of reach: glibc falls back to clone
        (0x06, 0, 0, _ABSENT),
        (0x15, 0, 4, clone),
        (0x20, 0, 0, 16),  # load its flags
        (0x45, 1, 0, _THREAD),
        (0x06, 0, 0, _DENY),
        (0x06, 0, 0, _ALLOW),
    ]
    for number in denied:
        program += [(0x15, 0, 1, number), (0x06, 0, 0, _DENY)]
    program.append((0x06, 0, 0, _ALLOW))
    packed = b"".join(struct.pack("=HBBI", *line) for line in program)
    held = ctypes.create_string_buffer(packed, len(packed))
    whole = struct.pack("@HP", len(program), ctypes.addressof(held))
    return bool(library.prctl(_SECCOMP, _FILTER, whole, 0, 0) == 0)


if __name__ == "__main__":
    main()
