"""Questions about gate reports and what else speaks for or against a version."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from everloop.core.clock import Instant
from everloop.core.digest import Digest
from everloop.core.errors import IntegrityError, NotFound
from everloop.core.ids import Id, is_id
from everloop.core.ports import where
from everloop.kernel.unit_of_work import View
from everloop.kernel.verbs import query
from everloop.registry.evidence import (
    Approval,
    GateReport,
    Waiver,
    approvals_of,
    find_waiver,
    newest_report,
    verify_report,
)
from everloop.registry.lookup import get_model, resolve_model
from everloop.registry.model import ModelVersion
from everloop.registry.queries import RefText

Limit = Annotated[int, Meta(ge=1, le=1_000)]
Cursor = Annotated[str, Meta(max_length=100)]


class ShowGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model version by ref or id, for its newest report; or the id of a report."""

    ref: RefText


class GateView(Struct, frozen=True, kw_only=True):
    """A report, whether it verifies, and what people added to it.

    Attributes:
        report: None for a version that was waived without having been through its gate.
        verified: Whether there is a report and the evaluator's signature holds for this artifact.
        problem: Why the report does not verify.
        waiver: The waiver that overrules the report, or its lack, if any.
        approvals: Those that count.
    """

    version: ModelVersion
    report: GateReport | None
    verified: bool
    problem: str | None
    waiver: Waiver | None
    approvals: tuple[Approval, ...]


class ListGates(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model whose reports to list; without it those of all models. Newest first."""

    model: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    limit: Limit = 100
    after: Cursor | None = None


class GateSummary(Struct, frozen=True, kw_only=True):
    """A report in short.

    Attributes:
        waived: Why somebody let the version pass although the report says no; None when nobody did.
    """

    id: Id
    name: str
    version: str
    artifact: Digest
    passed: bool
    failed: tuple[str, ...]
    at: Instant
    waived: str | None = None


class GateList(Struct, frozen=True, kw_only=True):
    """One page of reports; ``next`` is the cursor of the page after it."""

    items: tuple[GateSummary, ...]
    next: str | None = None


@query("gate.show", permission="gate:read")
def show_gate(ask: ShowGate, view: View) -> GateView:
    """Show a gate report with its checks, and whether its signature verifies.

    Raises:
        NotFound: ``gate_report.not_found`` for a version with neither a report nor a waiver, or
            the version does not exist.
    """
    bare = ask.ref.removeprefix("gate_report:")
    report = view.find(GateReport, Id(bare)) if is_id(bare) else None
    if report is not None:
        version = view.get(ModelVersion, report.version)
    else:
        version = resolve_model(view, ask.ref)
        report = newest_report(view, version)
    waiver = find_waiver(view, version, report)
    if report is None and waiver is None:
        raise NotFound(
            "gate_report.not_found",
            f"{version.name}@{version.version} has not been through its gate.",
            hint=f"Run `everloop gate evaluate {version.name}@{version.version}`.",
        )
    problem = _problem(view, report, version) if report else None
    return GateView(
        version=version,
        report=report,
        verified=report is not None and problem is None,
        problem=problem,
        waiver=waiver,
        approvals=approvals_of(view, version),
    )


def _problem(view: View, report: GateReport, version: ModelVersion) -> str | None:
    try:
        verify_report(view, report, version)
    except IntegrityError as error:
        return error.message
    return None


@query("gate.list", permission="gate:read")
def list_gates(ask: ListGates, view: View) -> GateList:
    """List gate reports, newest first."""
    conditions = where(model=get_model(view, ask.model).id) if ask.model else ()
    page, more = view.page(
        GateReport, *conditions, descending=True, limit=ask.limit, after=ask.after
    )
    return GateList(items=tuple(_summary(view, report) for report in page), next=more)


def _summary(view: View, report: GateReport) -> GateSummary:
    version = view.get(ModelVersion, report.version)
    waiver = None if report.passed else find_waiver(view, version, report)
    return GateSummary(
        id=report.id,
        name=version.name,
        version=version.version,
        artifact=report.artifact,
        passed=report.passed,
        failed=tuple(check.name for check in report.checks if not check.passed),
        at=report.at,
        waived=None if waiver is None else waiver.why,
    )
