"""The page on the Open Inference Protocol: its addresses and its datatypes, out of the code."""

from __future__ import annotations

from pathlib import Path

from everloop.core.clock import SystemClock
from everloop.serve.explain import Explainer
from everloop.serve.protocols import oip, repository
from everloop.serve.protocols.datatypes import DATATYPES, TAKEN
from everloop.serve.protocols.oip import OpenInference
from everloop.serve.protocols.repository import Repository
from everloop.serve.service import Service

TEXT = Path(__file__).with_name("inference_page.md")


def inference_page(note: str) -> str:
    """Return the page."""
    service = Service(SystemClock())
    lines = ["| address | answers |", "|---|---|"]
    for route in (*oip.routes(service, Explainer()), *repository.routes(service)):
        owner = OpenInference if "/repository/" not in route.pattern else Repository
        name = getattr(route.handler, "__name__", "")
        said = (getattr(owner, name).__doc__ or "").splitlines()[0].rstrip(".")
        lines.append(f"| `{route.method} {route.pattern}` | {said} |")
    taken = ["| input | told as | taken |", "|---|---|---|"]
    for kind, datatype in DATATYPES.items():
        taken.append(f"| {kind} | `{datatype}` | {', '.join(sorted(TAKEN[kind]))} |")
    text = TEXT.read_text(encoding="utf-8").replace("{addresses}", "\n".join(lines))
    return note + text.replace("{datatypes}", "\n".join(taken))
