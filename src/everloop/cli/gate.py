"""``everloop gate``: judging versions before they are released."""

from __future__ import annotations

from typing import Any

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup


def _show_report(report: Any) -> None:
    output.write_clean(f"Report {report.id}: {'passed' if report.passed else 'REFUSED'}")
    output.write_table(
        ("check", "passed", "summary"),
        [(check.name, check.passed, check.summary) for check in report.checks],
    )


def _show_view(answer: Any) -> None:
    output.write_clean(f"{answer.version.name}@{answer.version.version}")
    if answer.report is None:
        output.write("It has not been through its gate.")
    else:
        _show_report(answer.report)
    if answer.verified:
        output.write("The evaluator's signature verifies for this artifact.")
    elif answer.problem:
        output.write_clean(f"DOES NOT VERIFY: {answer.problem}")
    if answer.waiver is not None:
        output.write_clean(f"Waived: {answer.waiver.why}")
    output.write(f"Approvals that count: {len(answer.approvals)}")


GROUP = VerbGroup(
    "gate",
    BoundGroup(
        help="Gates: what a version must pass before it gets traffic.",
        bound={
            "evaluate": Bound(
                "gate.evaluate",
                arguments=("version",),
                show=_show_report,
                exit_code=lambda report: 0 if report.passed else 6,
            ),
            "show": Bound("gate.show", arguments=("ref",), show=_show_view),
            "list": Bound(
                "gate.list",
                columns=("at", "model=name", "version", "passed", "waived", "failed", "id"),
            ),
            "waive": Bound(
                "gate.waive",
                arguments=("version",),
                confirm="Let {version} pass although its gate said no?",
            ),
            "approve": Bound("gate.approve", arguments=("version",)),
        },
    ),
)
COMMANDS = {"gate": GROUP}
