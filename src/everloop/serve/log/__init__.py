"""The prediction log: what was asked and answered, in files that outlive the process.

One frame a request, copied into a mapped file whose space is taken beforehand: no system call, no
waiting for a disk, and nothing lost when the process is killed in the next moment.
"""

from everloop.serve.log.block import STATUS_CODES, Block, Source
from everloop.serve.log.flusher import Flusher
from everloop.serve.log.reader import Chunk, read_rows
from everloop.serve.log.writer import LogWriter, list_files

__all__ = [
    "STATUS_CODES",
    "Block",
    "Chunk",
    "Flusher",
    "LogWriter",
    "Source",
    "list_files",
    "read_rows",
]
