"""Putting a version through its gate, waiving a report, approving an artifact.

No input of `gate.evaluate` can carry a number: everything is measured here, on bytes and rows that
are read under their digests.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.clock import to_text
from everloop.core.digest import Digest, value_digest
from everloop.core.errors import Conflict, Denied, EverloopError, InvalidInput
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.data.model import DatasetVersion
from everloop.gate.case import Case
from everloop.gate.checks import run_checks
from everloop.gate.golden import make_golden, store_golden
from everloop.gate.model import GateConfig
from everloop.kernel.authz import Actor, ActorKind
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import verb
from everloop.registry.evidence import (
    EVALUATOR,
    Approval,
    CheckResult,
    DatasetRoots,
    GateReport,
    Predicate,
    ServingProof,
    Waiver,
    newest_report,
    sign_statement,
    state,
    verify_report,
)
from everloop.registry.formats import require_judgeable
from everloop.registry.lookup import find_alias, resolve_model
from everloop.registry.model import ModelVersion
from everloop.registry.proof import require_proven
from everloop.registry.queries import PRODUCTION, RefText

Reason = Annotated[str, Meta(min_length=1, max_length=2_000)]


class EvaluateGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version to measure, and one more to compare it with beside the one in production."""

    version: RefText
    champion: RefText | None = None


class WaiveGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version to let pass although its gate says no, and why."""

    version: RefText
    why: Reason


class ApproveArtifact(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version to approve; with ``artifact`` given, only if it is exactly that one."""

    version: RefText
    artifact: Annotated[Digest, Meta(max_length=80)] | None = None
    comment: Annotated[str, Meta(max_length=2_000)] = ""


class _Measured(Struct, frozen=True, kw_only=True):
    """What the evaluator found before the transaction."""

    version: ModelVersion
    production: Id | None
    champion: ModelVersion | None
    config: Digest
    datasets: DatasetRoots
    checks: tuple[CheckResult, ...]
    golden: Digest | None
    serving: ServingProof | None


def _measure(ask: EvaluateGate, desk: Desk) -> _Measured:
    with desk.read() as view:
        version = resolve_model(view, ask.version)
        require_proven(view, version)
        require_judgeable(version)
        production = find_alias(view, version.model, PRODUCTION)
        named = resolve_model(view, ask.champion) if ask.champion else None
        config = view.model_settings(version.name, "gate", GateConfig)
        target = _configured_target(view, version.name)
        training = _find_data(view, version.dataset_version)
        holdout = _find_data(view, version.holdout)
    if named is not None and named.model != version.model:
        raise InvalidInput(
            "gate.other_model",
            f"{named.name}@{named.version} is a version of another model.",
            hint="Compare versions of one model.",
        )
    # Naming a weak rival must not help: the version in production is always among those to beat.
    rivals = {
        rival.id: rival
        for rival in (production, named)
        if rival is not None and rival.id != version.id
    }
    case = Case(
        version,
        config,
        data=(training, holdout),
        blobs=desk.services.blobs,
        policy=desk.services.policy,
        target=target,
    )
    try:
        checks = run_checks(case, tuple(rivals.values()))
        golden = _golden(case, desk)
        serving = case.serving
    finally:
        case.close()
    return _Measured(
        version=version,
        production=production.id if production else None,
        champion=next(iter(rivals.values()), None),
        config=value_digest("gate_config", config),
        datasets=DatasetRoots(
            training=training.root if training else None,
            holdout=holdout.root if holdout else None,
        ),
        checks=checks,
        golden=golden,
        serving=serving,
    )


@verb("gate.evaluate", permission="gate:write", prepare=_measure)
def evaluate_gate(ask: EvaluateGate, work: Work, found: _Measured) -> GateReport:
    """Measure a version on its holdout, judge it, and sign the report.

    A report that says no is a report, too: the answer tells, nothing is raised.

    Raises:
        NotFound: the version does not exist.
        Conflict: ``gate.champion_changed`` when another version went into production meanwhile.
    """
    del ask
    version = found.version
    production = find_alias(work, version.model, PRODUCTION)
    if (production.id if production else None) != found.production:
        raise Conflict(
            "gate.champion_changed",
            "Another version went into production while this one was measured.",
            hint="Run the gate again, so that it is compared with the new one.",
        )
    key = work.new_id()
    passed = all(check.passed for check in found.checks)
    predicate = Predicate(
        producer=EVALUATOR,
        report=key,
        project=work.project,
        version=version.id,
        champion=found.champion.artifact if found.champion else None,
        config=found.config,
        datasets=found.datasets,
        checks=found.checks,
        passed=passed,
        golden=found.golden,
        at=to_text(work.now),
        serving=found.serving,
    )
    text, signature = sign_statement(work.services.signers[EVALUATOR], state(version, predicate))
    report = GateReport(
        id=key,
        project=work.project,
        model=version.model,
        version=version.id,
        artifact=version.artifact,
        champion=found.champion.id if found.champion else None,
        passed=passed,
        checks=found.checks,
        producer=EVALUATOR,
        golden=found.golden,
        statement=text,
        signature=signature,
        at=work.now,
        by=work.caller.actor,
        serving=found.serving,
    )
    work.touch(f"gate_report:{key}", f"model_version:{version.id}")
    work.insert(report)
    work.link(f"gate_report:{key}", "judged", f"model_version:{version.id}")
    return report


@verb("gate.waive", permission="gate:approve")
def waive_gate(ask: WaiveGate, work: Work) -> Waiver:
    """Let an artifact pass although its newest report says no, with the reason on record.

    The waiver is void as soon as the version gets another report.

    Raises:
        InvalidInput: ``waiver.reason_missing``.
        Denied: ``person.required`` for services.
        Conflict: ``gate.passed`` when there is nothing to waive.
        IntegrityError: ``gate.report_forged``.
    """
    _require_person(work)
    if not ask.why.strip():
        raise InvalidInput(
            "waiver.reason_missing",
            "A waiver needs a reason.",
            hint="Say why the risk is acceptable, for those who read it later.",
        )
    version = resolve_model(work, ask.version)
    report = newest_report(work, version)
    if report is not None and verify_report(work, report, version).passed:
        raise Conflict(
            "gate.passed",
            f"The gate let {version.name}@{version.version} pass; there is nothing to waive.",
            hint="Start the release.",
        )
    waiver = work.insert(
        Waiver(
            id=work.new_id(),
            project=work.project,
            version=version.id,
            artifact=version.artifact,
            report=report.id if report else None,
            why=ask.why.strip(),
            who=work.caller.actor,
            own_work=_is_author(work, version),
            when=work.now,
        )
    )
    work.touch(f"waiver:{waiver.id}", f"model_version:{version.id}")
    work.link(f"waiver:{waiver.id}", "judged", f"model_version:{version.id}")
    if report is not None:
        work.link(f"waiver:{waiver.id}", "overruled", f"gate_report:{report.id}")
    return waiver


@verb("gate.approve", permission="gate:approve")
def approve_artifact(ask: ApproveArtifact, work: Work) -> Approval:
    """Consent by name to one exact artifact; approving it again changes nothing.

    Raises:
        Denied: ``approval.own_work`` for the version's author, ``person.required`` for services.
        Conflict: ``approval.other_artifact``.
        NotFound: the version does not exist.
    """
    _require_person(work)
    version = resolve_model(work, ask.version)
    if _is_author(work, version):
        raise Denied(
            "approval.own_work",
            f"You registered {version.name}@{version.version} yourself.",
            hint="Ask another approver of the project.",
        )
    if ask.artifact is not None and ask.artifact != version.artifact:
        raise Conflict(
            "approval.other_artifact",
            f"{version.name}@{version.version} is artifact {version.artifact}, not the one named.",
            hint="Look at the version again and approve what it is now.",
        )
    mine = where(version=version.id, approver=work.caller.actor)
    known = work.first(Approval, *mine)
    if known is not None:
        return known
    approval = work.insert(
        Approval(
            id=work.new_id(),
            project=work.project,
            version=version.id,
            artifact=version.artifact,
            approver=work.caller.actor,
            comment=ask.comment,
            at=work.now,
        )
    )
    work.touch(f"approval:{approval.id}", f"model_version:{version.id}")
    work.link(f"approval:{approval.id}", "approved", f"model_version:{version.id}")
    return approval


def _find_data(view: View, key: Id | None) -> DatasetVersion | None:
    return view.find(DatasetVersion, key) if key else None


def _configured_target(view: View, name: str) -> str | None:
    models = view.settings().get("models")
    model = models.get(name) if isinstance(models, dict) else None
    target = model.get("target") if isinstance(model, dict) else None
    return target if isinstance(target, str) else None


def _golden(case: Case, desk: Desk) -> Digest | None:
    try:
        return store_golden(desk.services.blobs, make_golden(case))
    except (EverloopError, ValueError):
        # Without a readable model or holdout there are none, and the checks say why.
        return None


def _is_author(work: Work, version: ModelVersion) -> bool:
    return version.created_by in {work.caller.actor, work.caller.on_behalf_of}


def _require_person(work: Work) -> None:
    actor = work.tx.find(Actor, Id(work.caller.actor))
    if actor is None or actor.kind is not ActorKind.PERSON:
        raise Denied(
            "person.required",
            "Only a person can take this decision.",
            hint="Let somebody with the role approver or admin do it under their own name.",
        )
