"""The table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from everloop.loop.model import LoopRun


def print_report(console: Console, figures: Mapping[str, object], runs: Sequence[LoopRun]) -> None:
    """Print what the loop decided and what came of it."""
    decided = Table(title="What the loop decided, and why", title_justify="left", expand=False)
    for column in ("when", "outcome", "why"):
        decided.add_column(column, overflow="fold")
    for run in sorted(runs, key=lambda run: run.caused_at):
        decided.add_row(f"{run.caused_at:%Y-%m-%d}", run.state.value, run.why[:140])
    console.print(decided)
    summary = Table(title="Two years of hours, replayed", title_justify="left", show_header=False)
    summary.add_column()
    summary.add_column(overflow="fold")
    for name, value in _lines(figures):
        summary.add_row(name, value)
    console.print(summary)


def _lines(figures: Mapping[str, object]) -> list[tuple[str, str]]:
    ledger, broken, leak, shuffled = (
        figures.get(name) if isinstance(figures.get(name), dict) else {}
        for name in ("ledger", "broken", "leak", "shuffled")
    )
    assert isinstance(ledger, dict)
    assert isinstance(broken, dict)
    assert isinstance(leak, dict)
    assert isinstance(shuffled, dict)
    return [
        ("Mean absolute error, frozen model", f"{figures['frozen_mae']:.1f} bikes an hour"),
        (
            "Mean absolute error, with the loop",
            f"{figures['loop_mae']:.1f} ({figures['reduction']:.0%} less)",
        ),
        ("Hours answered through HTTP", f"{figures['hours']:,}"),
        ("Retrains", f"{figures['retrains']}"),
        ("Model given the answer in disguise", _refused(leak)),
        ("Model of shuffled labels", _refused(shuffled)),
        (
            "Broken model forced into canary",
            f"rolled back after {broken.get('rolled_back_after_days')} days of late labels; "
            f"traffic switched in {broken.get('switch_ms')} ms",
        ),
        ("Ledger", f"{'verified' if ledger.get('ok') else 'NOT verified'}"),
        ("Lineage of sampled predictions", "whole" if not figures["lineage_broken"] else "BROKEN"),
        ("Took", f"{figures['seconds']} s"),
    ]


def _refused(mark: Mapping[str, object]) -> str:
    return "refused by the gate" if mark and not mark["passed"] else "not tried"
