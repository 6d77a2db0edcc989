"""``everloop monitor`` and ``everloop predictions``: what was served and how it went."""

from __future__ import annotations

from typing import Any

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup


def _show_monitor(answer: Any) -> None:
    watch = answer.watch
    output.write_fields(
        {
            "predictions": answer.predictions,
            "labelled": answer.labelled,
            "batches_of_labels": answer.batches,
            "watermark": None if watch is None else watch.watermark,
            "watched_version": None if watch is None else watch.version,
            "bad_loss_above": None if watch is None else watch.threshold,
            "open_alerts": len(answer.open_alerts),
        }
    )
    for alert in answer.open_alerts:
        output.write_clean(f"  {alert.kind.value}: {alert.summary} ({alert.id})")


ONE = ("deployment",)
MONITOR = VerbGroup(
    "monitor",
    BoundGroup(
        help="Monitoring: windows of inputs, losses of labelled answers, and alerts.",
        bound={
            "show": Bound("monitor.show", arguments=ONE, deployments=ONE, show=_show_monitor),
            "windows": Bound(
                "monitor.windows",
                arguments=ONE,
                deployments=ONE,
                columns=("start", "end", "rows", "drifted", "untested"),
            ),
            "losses": Bound(
                "monitor.losses",
                arguments=ONE,
                deployments=ONE,
                columns=("number", "at", "mean_loss", "bad_share", "evidence", "alarmed"),
            ),
            "alerts": Bound(
                "alert.search",
                deployments=ONE,
                columns=("raised_at", "kind", "state", "summary", "id"),
            ),
            "acknowledge": Bound("alert.acknowledge", arguments=("id",)),
        },
    ),
)
PREDICTIONS = VerbGroup(
    "predictions",
    BoundGroup(
        help="Answered requests, sealed with their proofs.",
        bound={
            "list": Bound(
                "prediction.search",
                arguments=ONE,
                deployments=ONE,
                columns=("id", "at", "version", "arm", "status", "output", "label"),
            ),
            "show": Bound("prediction.show", arguments=("id",)),
            "segments": Bound(
                "prediction.segments",
                arguments=ONE,
                deployments=ONE,
                columns=("seq", "rows", "labelled", "first_at", "last_at", "file", "root"),
            ),
        },
    ),
)
COMMANDS = {"monitor": MONITOR, "predictions": PREDICTIONS}
