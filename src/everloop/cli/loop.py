"""``everloop loop``: the runs of the loop, and its switch."""

from __future__ import annotations

from typing import Any

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup


def _show_run(answer: Any) -> None:
    output.write_fields(answer.run)
    output.write("")
    output.write_table(
        ("step", "at", "from", "to", "why"),
        [(step.seq, step.at, step.before, step.after, step.why) for step in answer.transitions],
    )


ONE = ("deployment",)
GROUP = VerbGroup(
    "loop",
    BoundGroup(
        help="The loop: alarm, retrain, gate, release, promote or roll back, by itself.",
        bound={
            "list": Bound(
                "loop.list",
                deployments=ONE,
                columns=("started_at", "model", "state", "cause", "attempt", "why", "id"),
            ),
            "show": Bound("loop.show", arguments=("id",), show=_show_run),
            "status": Bound("loop.status", arguments=ONE, deployments=ONE),
            "pause": Bound(
                "loop.pause",
                arguments=ONE,
                deployments=ONE,
                confirm="Keep the loop of {deployment} from beginning anything?",
            ),
            "resume": Bound("loop.resume", arguments=ONE, deployments=ONE),
        },
    ),
)
COMMANDS = {"loop": GROUP}
