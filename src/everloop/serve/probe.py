"""Asks the server in this container whether it is ready: the health check of an image.

The image has neither a shell nor curl for it, so Python asks. Exits 0 for yes and 1 for no.
"""

from __future__ import annotations

import http.client
import os
import sys

from everloop.core.errors import EverloopError
from everloop.serve.environment import probe_port

READY_PATH = "/readyz"
TIMEOUT_S = 2.0


def is_ready(port: int) -> bool:
    """Tell whether a server on this machine answers that it is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", READY_PATH)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """Return the exit code."""
    try:
        return 0 if is_ready(probe_port(os.environ)) else 1
    except EverloopError as error:
        sys.stderr.write(f"everloop.serve.probe: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
