"""The newest ledger entries that decided something, each in words that say what about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from everloop.data.model import DatasetVersion
from everloop.gate.queries import GateView
from everloop.govern.audit import EntryList
from everloop.govern.model import EntryLine
from everloop.kernel.unit_of_work import DECIDED
from everloop.loop.model import LoopTransition
from everloop.loop.queries import RunHistory
from everloop.registry.queries import ModelView
from everloop.release.queries import DeploymentView, ReleaseView
from everloop.ui.visit import Visit
from everloop.ui.words import ROUTINE, plain

SHOWN: Final = 12
_TURNS: Final = frozenset({"loop.start", "loop.advance"})


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry; ``about`` names the thing, ``outcome`` is a state and ``why`` its reason."""

    line: EntryLine
    about: str | None
    outcome: str | None = None
    why: str | None = None


def last_decisions(visit: Visit) -> list[Decision] | None:
    """Return what somebody or the loop decided last; routine work is left out.

    None when no package keeps a ledger.
    """
    # Asked for by themselves: the looks and seals between two decisions may be thousands.
    by_evidence = visit.query("audit.list", EntryList, resource=DECIDED, limit=SHOWN)
    others = visit.query("audit.list", EntryList, without=ROUTINE, limit=SHOWN)
    if by_evidence is None or others is None:
        return None
    found = {line.index: line for line in (*by_evidence.items, *others.items)}
    lines = [found[index] for index in sorted(found, reverse=True)[:SHOWN]]
    turns: dict[str, list[LoopTransition]] = {}
    return [_tell(visit, line, turns) for line in lines]


def _tell(visit: Visit, line: EntryLine, turns: dict[str, list[LoopTransition]]) -> Decision:
    kind, _, key = line.resource.partition(":")
    if line.outcome == "ok" and line.action in _TURNS and kind == "loop_run":
        # Entries come newest first, and each one is one transition of its run.
        if key not in turns:
            history = visit.find("loop.show", RunHistory, id=key)
            turns[key] = list(history.transitions) if history else []
        if turns[key]:
            step = turns[key].pop()
            return Decision(line, None, str(step.after), step.why)
    teller = _TELLERS.get(kind)
    return teller(visit, line, key) if teller else Decision(line, None, why=line.reason)


def _tell_gate(visit: Visit, line: EntryLine, key: str) -> Decision:
    gate = visit.find("gate.show", GateView, ref=key)
    if gate is None or gate.report is None:
        return Decision(line, None, why=line.reason)
    failed = [plain(check.name) for check in gate.report.checks if not check.passed]
    return Decision(
        line,
        f"{gate.version.name}@{gate.version.version}",
        "passed" if gate.report.passed else "refused",
        ", ".join(failed) or line.reason,
    )


def _tell_release(visit: Visit, line: EntryLine, key: str) -> Decision:
    item = visit.find("release.show", ReleaseView, release=key)
    about = f"{item.model}@{item.candidate} to {item.deployment}" if item else None
    return Decision(line, about, line.decision, line.reason)


def _tell_model(visit: Visit, line: EntryLine, key: str) -> Decision:
    model = visit.find("model.show", ModelView, ref=key)
    about = f"{model.version.name}@{model.version.version}" if model else None
    return Decision(line, about, why=line.reason)


def _tell_data(visit: Visit, line: EntryLine, key: str) -> Decision:
    data = visit.find("data.show", DatasetVersion, ref=key)
    return Decision(line, f"{data.name}@{data.number}" if data else None, why=line.reason)


def _tell_deployment(visit: Visit, line: EntryLine, key: str) -> Decision:
    found = visit.find("deployment.show", DeploymentView, deployment=key)
    return Decision(line, found.deployment.name if found else None, why=line.reason)


_TELLERS: Final[dict[str, Callable[[Visit, EntryLine, str], Decision]]] = {
    "gate_report": _tell_gate,
    "release": _tell_release,
    "model_version": _tell_model,
    "dataset_version": _tell_data,
    "deployment": _tell_deployment,
}
