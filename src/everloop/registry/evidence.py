"""Evidence about a model version, and the one test of whether it may be released.

Written by gates, read by releases. All of it binds to the artifact digest: a report, a waiver or an
approval of one artifact says nothing about another. A report counts by its signed statement, not by
its columns, so that a row written past the evaluator is worth nothing.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct

from everloop.core.canonical import canonical_json
from everloop.core.clock import Instant, to_text
from everloop.core.digest import Digest
from everloop.core.errors import GateFailed, IntegrityError, JsonValue
from everloop.core.ids import ActorId, Id, ProjectId
from everloop.core.ports import Signer, where
from everloop.core.records import Record, record
from everloop.kernel.signing import is_signed
from everloop.kernel.unit_of_work import View
from everloop.registry.model import ModelVersion

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://everloop.dev/gate-report/v1"
EVALUATOR = "evaluator"
LOSS_PERCENTILES = (50, 75, 90, 95, 99)
LossName: TypeAlias = Literal["absolute_error", "squared_error", "zero_one", "log_loss"]


class CheckResult(Struct, frozen=True, kw_only=True):
    """One judgement.

    Attributes:
        name: ``schema``, ``leakage``, ``beats_champion``, ``latency``, ``finite_output``, ...
        passed: Whether the version may go on.
        summary: One sentence for somebody who answers for the risk.
        values: What was measured, and the limits.
    """

    name: str
    passed: bool
    summary: str
    values: dict[str, float | str | None] = {}


class ServingProof(Struct, frozen=True, kw_only=True):
    """Which runtime may answer for an artifact, and what was measured of it: the gate's evidence.

    It stays in the registry; what a server needs of it is sealed into bundles as their ``Verdict``.

    Attributes:
        runtime: Its name, such as ``lightgbm-c``.
        runtime_version: The package and version that answered.
        format: The format of the files that it loads.
        files: Blobs of these files by name, where they were converted; empty for the version's own.
        reference: Whose answers it was held against, in words.
        rows: How many rows both answered.
        max_difference: The largest difference of two answers.
        tolerance: How much was allowed, as a share of the answer, or as such below 1; 0 means that
            the bits are the same.
        p50_us: Median time of a row, in microseconds.
        p99_us: The 99th percentile of it.
        best_batch: How many rows at once it answers at nearly its best rate.
        rows_per_s: That rate.
        boundary: Blob of rows that visit the model's edges, with the reference's answers.
        background: Blob of rows of the training data, for explanations.
        refused: Why other runtimes were not chosen, by name.
    """

    runtime: str
    runtime_version: str
    format: str
    files: dict[str, Digest] = {}
    reference: str
    rows: int
    max_difference: float
    tolerance: float
    p50_us: float
    p99_us: float
    best_batch: int
    rows_per_s: float
    boundary: Digest | None = None
    background: Digest | None = None
    refused: dict[str, str] = {}


class DatasetRoots(Struct, frozen=True, kw_only=True):
    """Merkle roots of the data that a report rests on."""

    training: Digest | None
    holdout: Digest | None


class Predicate(Struct, frozen=True, kw_only=True):
    """What the evaluator states about an artifact."""

    producer: str
    report: Id
    project: ProjectId
    version: Id
    champion: Digest | None
    config: Digest
    datasets: DatasetRoots
    checks: tuple[CheckResult, ...]
    passed: bool
    golden: Digest | None
    at: str
    serving: ServingProof | None = None


class Subject(Struct, frozen=True, kw_only=True):
    """The artifact that a statement is about, in the words of in-toto."""

    name: str
    digest: dict[str, str]


class Statement(Struct, frozen=True, kw_only=True, rename={"type": "_type"}):
    """An in-toto statement (https://github.com/in-toto/attestation, spec v1)."""

    type: str
    subject: tuple[Subject, ...]
    predicateType: str  # noqa: N815 -- the specification's spelling
    predicate: Predicate


@record("gate_report", index=(("project", "version"), ("project", "model"), ("project", "at")))
class GateReport(Record, frozen=True, kw_only=True):
    """What the evaluator found out about one artifact; trusted only with its signature.

    Attributes:
        model: Id of the model.
        version: Id of the version.
        artifact: Its artifact digest.
        champion: Id of the version it was compared with.
        golden: Blob of the golden rows: inputs with the answers that every server must give.
        statement: Canonical JSON of the statement.
        signature: Ed25519 over the statement, in hex.
        serving: The runtime that may answer for it; None when none was found to.
    """

    project: ProjectId
    model: Id
    version: Id
    artifact: Digest
    champion: Id | None
    passed: bool
    checks: tuple[CheckResult, ...]
    producer: str
    golden: Digest | None
    statement: str
    signature: str
    at: Instant
    by: ActorId
    serving: ServingProof | None = None


@record("waiver", index=(("project", "version"),))
class Waiver(Record, frozen=True, kw_only=True):
    """A person's decision to let an artifact pass although its gate says no.

    Attributes:
        report: The report that it overrules; None when there was none.
        own_work: Whether the one who waived also registered the version.
    """

    project: ProjectId
    version: Id
    artifact: Digest
    report: Id | None
    why: str
    who: ActorId
    own_work: bool
    when: Instant


@record("approval", unique=(("version", "approver"),), index=(("project", "version"),))
class Approval(Record, frozen=True, kw_only=True):
    """One person's consent to one exact artifact."""

    project: ProjectId
    version: Id
    artifact: Digest
    approver: ActorId
    comment: str
    at: Instant


Evidence: TypeAlias = GateReport | Waiver


def sign_statement(signer: Signer, statement: Statement) -> tuple[str, str]:
    """Return a statement's canonical JSON and the signature over it in hex."""
    text = canonical_json(statement)
    return text.decode(), signer.sign(text).hex()


def state(version: ModelVersion, predicate: Predicate) -> Statement:
    """Return the statement about a version."""
    algorithm, _, value = version.artifact.partition(":")
    subject = Subject(name=f"{version.name}@{version.version}", digest={algorithm: value})
    return Statement(
        type=STATEMENT_TYPE,
        subject=(subject,),
        predicateType=PREDICATE_TYPE,
        predicate=predicate,
    )


def newest_report(view: View, version: ModelVersion) -> GateReport | None:
    """Return the newest report about a version, whatever it says, or None."""
    found = view.select(GateReport, *where(version=version.id), descending=True, limit=1)
    return found[0] if found else None


class Yardstick(Struct, frozen=True, kw_only=True):
    """What a version's losses are measured by: the kind of loss, and a percentile of its own."""

    loss: LossName
    bound: float


def yardstick(view: View, version: ModelVersion, percentile: int) -> Yardstick | None:
    """Return a percentile of a version's losses on data it was not trained on, and their kind.

    The evaluator measured it; None when the version never went through its gate.

    Raises:
        IntegrityError: ``gate.report_forged``.
    """
    report = newest_report(view, version)
    if report is None:
        return None
    for check in verify_report(view, report, version).checks:
        bound, loss = check.values.get(f"loss_q{percentile}"), check.values.get("loss")
        if check.name == "beats_champion" and isinstance(bound, float):
            known = (name for name in get_args(LossName) if name == loss)
            return Yardstick(loss=next(known, "absolute_error"), bound=bound)
    return None


def verify_report(view: View, report: GateReport, version: ModelVersion) -> Predicate:
    """Return what a report states, after verifying that the evaluator stated it of this artifact.

    Raises:
        IntegrityError: ``gate.report_forged``.
    """
    try:
        signature = bytes.fromhex(report.signature)
        statement = msgspec.json.decode(report.statement, type=Statement)
    except (ValueError, msgspec.DecodeError) as error:
        raise _forged(report, "its statement or signature cannot be read") from error
    evaluator = view.services.signers[EVALUATOR]
    if not is_signed(evaluator.public_key, signature, report.statement.encode()):
        raise _forged(report, "the evaluator did not sign it")
    told = statement.predicate
    algorithm, _, value = version.artifact.partition(":")
    if (
        statement.type != STATEMENT_TYPE
        or statement.predicateType != PREDICATE_TYPE
        or len(statement.subject) != 1
        or statement.subject[0].digest != {algorithm: value}
        or report.artifact != version.artifact
        or told.report != report.id
        or told.version != version.id
        or report.version != version.id
        or told.project != view.project
    ):
        raise _forged(report, "it is about another artifact")
    if (
        told.passed != report.passed
        or told.passed != all(check.passed for check in told.checks)
        or told.checks != report.checks
        or told.golden != report.golden
        or told.serving != report.serving
        or told.at != to_text(report.at)
        or not told.checks
    ):
        raise _forged(report, "its row does not say what was signed")
    return told


def require_pass(view: View, version: ModelVersion) -> Evidence:
    """Return the evidence that admits a version: its newest report, or a waiver of that report.

    Raises:
        IntegrityError: ``gate.report_forged`` when the newest report does not verify.
        GateFailed: ``gate.missing`` without a report, ``gate.failed`` with its failed checks.
    """
    report = newest_report(view, version)
    told = verify_report(view, report, version) if report else None
    if report is not None and told is not None and told.passed:
        return report
    waiver = find_waiver(view, version, report)
    if waiver is not None:
        return waiver
    if told is None or report is None:
        raise GateFailed(
            "gate.missing",
            f"{version.name}@{version.version} has not been through its gate.",
            hint=f"Run `everloop gate evaluate {version.name}@{version.version}`.",
            context={"version": version.id, "artifact": version.artifact},
        )
    failed = [check for check in told.checks if not check.passed]
    names: list[JsonValue] = [check.name for check in failed]
    raise GateFailed(
        "gate.failed",
        f"The gate refused {version.name}@{version.version}: "
        + " ".join(check.summary for check in failed),
        hint="Improve the model, or have an approver waive the report with a reason.",
        context={"report": report.id, "failed": names, "artifact": version.artifact},
    )


def find_waiver(view: View, version: ModelVersion, report: GateReport | None) -> Waiver | None:
    """Return a waiver of exactly this artifact and exactly its newest report, or None."""
    wanted = report.id if report else None
    for waiver in view.select(Waiver, *where(version=version.id), descending=True):
        if waiver.artifact == version.artifact and waiver.report == wanted:
            return waiver
    return None


def approvals_of(view: View, version: ModelVersion) -> tuple[Approval, ...]:
    """Return the approvals that count for a version: of its artifact, and not by its author."""
    return tuple(
        approval
        for approval in view.select(Approval, *where(version=version.id))
        if approval.artifact == version.artifact and approval.approver != version.created_by
    )


def _forged(report: GateReport, why: str) -> IntegrityError:
    return IntegrityError(
        "gate.report_forged",
        f"Gate report {report.id} does not verify: {why}.",
        hint="Somebody changed the database. Run `everloop audit verify`, then the gate again.",
        context={"report": report.id},
    )
