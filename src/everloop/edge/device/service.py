"""A small HTTP face of the device, on the standard library: /predict, /healthz, /model."""

from __future__ import annotations

import errno
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Lock
from typing import Any, Dict, Optional, Tuple

from everloop.edge.device.engine import Engine
from everloop.edge.device.refusal import EdgeError

MOST_BYTES = 1_000_000
STALLED_S = 10.0
MOST_CALLERS = 64
BIND_S = 10.0


_FULL_TOLD = json.dumps(
    {"error": {"code": "edge.busy", "message": "Too many callers at once; ask again."}}
).encode()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_FULL_TOLD)
) + _FULL_TOLD


class Service(ThreadingHTTPServer):
    """Answers for one engine; one request at a time, since the engine is used by one thread.

    Each connection has a thread; more than ``MOST_CALLERS`` at once are told to come again.

    Args:
        engine: What answers.
        address: Where to listen; a port that is still in use is waited for.
        parent: Process to end with; None lives by itself.
    """

    daemon_threads = True
    request_queue_size = 2 * MOST_CALLERS

    def __init__(
        self, engine: Engine, address: Tuple[str, int], parent: Optional[int] = None
    ) -> None:
        super().__init__(address, Handler, bind_and_activate=False)
        self.engine = engine
        self.turn = Lock()
        self._room = BoundedSemaphore(MOST_CALLERS)
        self._parent = parent
        _bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, where there is room for one more."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        try:
            request.settimeout(1.0)
            request.sendall(_FULL)
        except OSError:
            pass  # it did not wait for its answer
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a caller that went away or stalled; the next one is answered."""

    def service_actions(self) -> None:
        """End when the agent that started this one has ended, however it did."""
        if self._parent is not None and os.getppid() != self._parent:
            os._exit(0)


class Handler(BaseHTTPRequestHandler):
    """Reads one request and writes its answer."""

    protocol_version = "HTTP/1.1"
    timeout = STALLED_S
    server: Service

    def do_GET(self) -> None:
        """Answer a question about the device."""
        engine = self.server.engine
        manifest = engine.bundle.manifest
        if self.path == "/healthz":
            told = {
                "status": "ok",
                "version": manifest["version"],
                "version_id": manifest["version_id"],
                "answers": engine.answers,
                "errors": engine.errors,
                "unlogged": engine.journal.unlogged if engine.journal else 0,
            }
            self._send(200, told)
        elif self.path == "/model":
            self._send(200, describe(manifest))
        else:
            self._refuse(404, "edge.not_found", "There is /predict, /healthz and /model.")

    def do_POST(self) -> None:
        """Answer rows: one object, or ``{"inputs": [...]}``."""
        length = self.headers.get("content-length", "")
        if self.path != "/predict":
            self._refuse(404, "edge.not_found", "Post rows to /predict.")
            return
        if not (length.isdecimal() and len(length) < 20) or "transfer-encoding" in self.headers:
            self._refuse(411, "edge.length_missing", "Send the body's content-length.")
            return
        if int(length) > MOST_BYTES:
            self._refuse(413, "edge.too_large", f"A body has at most {MOST_BYTES} bytes.")
            return
        try:
            body = self.rfile.read(int(length))
        except OSError:  # the time is out, or the caller has gone
            self._refuse(408, "edge.too_slow", f"The body did not come within {self.timeout} s.")
            return
        try:
            rows = read_rows(body)
            with self.server.turn:
                answers = self.server.engine.predict(rows)
        except EdgeError as error:
            status = 500 if error.code == "edge.model_failed" else 400
            self._refuse(status, error.code, str(error))
            return
        self._send(200, {"predictions": answers})

    def send_error(
        self, code: int, message: Optional[str] = None, explain: Optional[str] = None
    ) -> None:
        """Refuse what is no request, or has a method that there is not."""
        self._refuse(int(code), "edge.bad_request", explain or message or "This is no request.")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the log of predictions is the log."""

    def _send(self, status: int, told: Dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.close_connection = True
        self.request_version = getattr(self, "request_version", "HTTP/1.1")
        self._send(status, {"error": {"code": code, "message": message}})


def _bind(service: Service) -> None:
    """Listen, waiting for one that is just ending to leave the port."""
    until = time.monotonic() + BIND_S
    while True:
        try:
            service.server_bind()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                service.server_close()
                raise
            time.sleep(0.1)
        else:
            service.server_activate()
            return


def read_rows(body: bytes) -> Any:
    """Return the rows of a request: one object, a list of them, or ``{"inputs": [...]}``.

    Raises:
        EdgeError: ``edge.row_invalid``.
    """
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EdgeError(
            "edge.row_invalid", f"The row is no JSON: {error}.", 'Send {"name": value, ...}.'
        ) from error
    if isinstance(told, dict) and isinstance(told.get("inputs"), list):
        told = told["inputs"]
    return told if isinstance(told, list) else [told]


def describe(manifest: Dict[str, Any]) -> Dict[str, Any]:
    """Return what a caller needs to know of a model."""
    names = (
        "model", "version", "version_id", "number", "artifact", "task", "output_name", "outputs",
        "inputs", "parity", "evidence",
    )  # fmt: skip
    return {name: manifest[name] for name in names}
