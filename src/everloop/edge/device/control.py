"""Speaks with the control plane: three verbs, over the standard library's HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from pathlib import Path
from typing import Any, Dict, Optional
from urllib.parse import quote, urlencode, urlsplit

from everloop.edge.device.bundle import OFFER_CONTEXT, parse_key
from everloop.edge.device.ed25519 import is_signed
from everloop.edge.device.files import read_json
from everloop.edge.device.refusal import EdgeError

TIMEOUT_S = 20.0
NAMES = ("url", "project", "fleet", "device", "token", "key")


class Control:
    """The control plane, as one enrolled device sees it.

    Args:
        told: What enrolment gave: address, project, fleet, device, token and the key to trust.

    Attributes:
        key: The only key whose bundles and offers count.
    """

    def __init__(self, told: Dict[str, str]) -> None:
        self._told = told
        self.key = parse_key(told["key"])

    def ask(self, nonce: str, running: Optional[str]) -> Dict[str, Any]:
        """Return what this device should run, once signature and nonce hold.

        Raises:
            EdgeError: ``edge.offline``, ``edge.turned_away`` or ``edge.offer_forged``.
        """
        asked = {"nonce": nonce} if running is None else {"nonce": nonce, "running": running}
        answer = self._call("GET", "device.poll", asked)
        return self.check_offer(answer, nonce)

    def check_offer(self, answer: Any, nonce: str) -> Dict[str, Any]:
        """Return an offer if it is signed, for this device, and the answer to this question.

        Raises:
            EdgeError: ``edge.offer_forged``.
        """
        try:
            text, signature = answer["offer"].encode(), bytes.fromhex(answer["signature"])
            offer: Dict[str, Any] = json.loads(text)
            is_ours = is_signed(self.key, signature, OFFER_CONTEXT + text) and (
                offer["kind"] == "everloop fleet offer"
                and offer["nonce"] == nonce
                and offer["device"] == self._told["device"]
                and offer["fleet"] == self._told["fleet"]
                and isinstance(offer["epoch"], int)
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            is_ours = False
            offer = {}
        if not is_ours:
            raise EdgeError(
                "edge.offer_forged",
                "The offer is not signed for this device's question by the key it trusts.",
                "Nothing was changed. Find out who answers at the server's address.",
            )
        return offer

    def fetch(self, digest: str, offset: int) -> Dict[str, Any]:
        """Return a part of the offered bundle: ``data`` as bytes, and ``size_bytes``.

        Raises:
            EdgeError: ``edge.offline`` or ``edge.turned_away``.
        """
        part = self._call("GET", "device.fetch", {"digest": digest, "offset": str(offset)})
        return {"data": base64.b64decode(part["data"]), "size_bytes": part["size_bytes"]}

    def report(self, told: Dict[str, Any]) -> Dict[str, Any]:
        """Tell what this device runs, and a batch of its answers.

        Raises:
            EdgeError: ``edge.offline`` or ``edge.turned_away``.
        """
        answer: Dict[str, Any] = self._call(
            "POST", "device.report", {**told, "sent_at_us": int(time.time() * 1e6)}
        )
        return answer

    def _call(self, method: str, verb: str, given: Dict[str, Any]) -> Any:
        address = urlsplit(self._told["url"])
        path = f"{address.path.rstrip('/')}/api/v1/projects/{quote(self._told['project'])}/{verb}"
        headers = {"authorization": f"Bearer {self._told['token']}"}
        body: Optional[bytes] = None
        if method == "GET":
            path = f"{path}?{urlencode(given)}"
        else:
            body = json.dumps(given, separators=(",", ":")).encode()
            headers["content-type"] = "application/json"
        try:
            connection = _connect(address.scheme, address.hostname or "", address.port)
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                data = response.read()
            finally:
                connection.close()
            told = json.loads(data) if data else {}
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EdgeError(
                "edge.offline",
                f"The server can't be reached: {type(error).__name__}: {error}.",
                "Answers go on with what is here; the device asks again later.",
            ) from error
        if response.status >= 500 or response.status in (408, 429):
            raise EdgeError(
                "edge.offline",
                f"The server answers {response.status}.",
                "The device asks again later.",
            )
        if response.status != 200:
            inner = told.get("error", told) if isinstance(told, dict) else {}
            code = inner.get("code", "") if isinstance(inner, dict) else ""
            raise EdgeError(
                "edge.turned_away",
                f"The server answers {response.status} {code}.",
                "Look whether the device is enrolled, or was revoked.",
            )
        return told


def read_enrolment(folder: Path) -> Dict[str, str]:
    """Return what enrolment gave this device.

    Raises:
        EdgeError: ``edge.not_enrolled``.
    """
    told = read_json(folder / "device.json")
    if not isinstance(told, dict) or not all(isinstance(told.get(name), str) for name in NAMES):
        raise EdgeError(
            "edge.not_enrolled",
            f"There is no enrolment in {folder.name!r}.",
            "Put the file that `everloop fleet enrol ... -o device.json` wrote into the folder.",
        )
    return told


def _connect(scheme: str, host: str, port: Optional[int]) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
