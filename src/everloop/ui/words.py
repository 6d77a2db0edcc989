"""What states and verbs are called on the pages, and which of them are good or bad news."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Tone = Literal["good", "busy", "warn", "bad", "idle"]

_TONES: Final[Mapping[str, Tone]] = {
    "finished": "good",
    "passed": "good",
    "promoted": "good",
    "resolved": "good",
    "proven": "good",
    "better": "good",
    "verified": "good",
    "ran": "good",
    "on": "good",
    "ok": "good",
    "running": "busy",
    "standby": "busy",
    "shadow": "busy",
    "canary": "busy",
    "switching": "busy",
    "returning": "busy",
    "triggered": "busy",
    "training": "busy",
    "gating": "busy",
    "releasing": "busy",
    "hit": "good",
    "acknowledged": "warn",
    "waived": "warn",
    "not proven": "warn",
    "paused": "warn",
    "killed": "warn",
    "abandoned": "warn",
    "refused": "bad",
    "rolled_back": "bad",
    "failed": "bad",
    "open": "bad",
    "worse": "bad",
    "denied": "bad",
}

_DEEDS: Final[Mapping[str, str]] = {
    "actor.create": "added an actor",
    "actor.disable": "shut an actor out",
    "alert.acknowledge": "acknowledged an alert",
    "data.commit": "committed data",
    "deployment.create": "made a deployment",
    "deployment.drill": "began a drill of the way back",
    "deployment.halt": "threw the kill switch",
    "deployment.resume": "let a halted deployment go on",
    "deployment.settle": "moved a drill on",
    "feedback.add": "added labels",
    "gate.approve": "approved a model version",
    "gate.evaluate": "judged a model version",
    "gate.waive": "waived a gate's verdict",
    "instance.initialise": "set up this instance",
    "login.close": "logged out",
    "login.create": "made a login link",
    "login.open": "logged in",
    "loop.advance": "moved on",
    "loop.claim": "took control of the loop",
    "loop.pause": "paused the loop",
    "loop.resume": "resumed the loop",
    "loop.start": "began",
    "loop.turn": "finished a round of the loop",
    "model.alias": "moved an alias",
    "model.register": "registered a model version",
    "monitor.observe": "looked at the predictions",
    "prediction.seal": "sealed predictions",
    "project.configure": "put a configuration in force",
    "project.create": "made the project",
    "release.abort": "ended a release",
    "release.observe": "weighed the evidence of a release",
    "release.promote": "promoted a version",
    "release.rollback": "rolled back",
    "release.start": "began a release",
    "role.grant": "granted a role",
    "role.revoke": "took a role away",
    "run.finish": "finished a run",
    "run.log": "logged to a run",
    "run.start": "started a run",
    "step.record": "recorded a step",
    "token.create": "made a token",
    "token.revoke": "revoked a token",
}

# What evidence decided while it was weighed.
_VERDICTS: Final[Mapping[str, str]] = {
    "canary": "moved a release on",
    "promoted": "promoted a version by the evidence",
    "refused": "refused a version by the evidence",
    "rolled_back": "rolled back by the evidence",
}

# Work that goes on all the time and decides nothing.
ROUTINE: Final = (
    "feedback.add",
    "login.close",
    "login.create",
    "login.open",
    "loop.claim",
    "loop.turn",
    "monitor.observe",
    "prediction.seal",
    "release.observe",
    "run.log",
    "step.record",
)


def tone(state: object) -> Tone:
    """Tell how a state is to be taken; unknown ones are neutral."""
    return _TONES.get(str(state), "idle")


def plain(state: object) -> str:
    """Write a state or kind for reading."""
    return str(state).replace("_", " ")


def sentence(action: str, outcome: str = "ok", decision: str | None = None) -> str:
    """Say what an actor did, to stand after the actor's name."""
    deed = _VERDICTS.get(decision or "") or _DEEDS.get(action, f"performed {action}")
    return deed if outcome == "ok" else f"was refused {action}"
