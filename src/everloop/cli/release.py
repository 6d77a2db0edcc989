"""``everloop release`` and ``everloop rollback``: which version answers."""

from __future__ import annotations

from typing import Any

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup, make_command
from everloop.cli.session import Session


def _show_release(answer: Any) -> None:
    release = answer.release
    output.write_fields(
        {
            "release": release.id,
            "deployment": answer.deployment,
            "candidate": f"{answer.model}@{answer.candidate}",
            "champion": answer.champion,
            "state": release.state,
            "strategy": release.strategy,
            "share": release.share,
            "why": release.why,
            "evidence": release.evidence,
            "started_at": release.started_at,
            "updated_at": release.updated_at,
            "ended_at": release.ended_at,
            "findings": release.findings,
        }
    )


def _address(deployment: str) -> str | None:
    """Return where a deployment of this folder answers while its serving process runs."""
    from everloop.app.processes import find_running, read_address

    session = click.get_current_context().find_object(Session)
    home = None if session is None else session.client.home
    if home is None or find_running(home.serve(deployment)) is None:
        return None
    address = read_address(home.serve(deployment))
    return None if address is None else f"{address.url}/predict"


def _show_deployment(answer: Any) -> None:
    live = answer.live
    output.write_fields(
        {
            "deployment": answer.deployment.name,
            "id": answer.deployment.id,
            "model": answer.model,
            "champion": answer.champion,
            "previous": answer.previous,
            "epoch": answer.deployment.epoch,
            "answers_at": _address(answer.deployment.name),
            "live_release": None if live is None else f"{live.id} ({live.state.value})",
        }
    )


GROUP = VerbGroup(
    "release",
    BoundGroup(
        help="Releases: moving a deployment's traffic to a version, step by step.",
        bound={
            "start": Bound(
                "release.start",
                arguments=("deployment", "version"),
                hidden=("limits", "cursor_segment", "cursor_feedback", "at"),
                show=_show_release,
            ),
            "list": Bound(
                "release.search",
                columns=(
                    "started=release.started_at", "deployment", "candidate", "champion",
                    "state=release.state", "share=release.share", "why=release.why",
                    "id=release.id",
                ),
            ),
            "show": Bound("release.show", arguments=("release",), show=_show_release),
            "promote": Bound(
                "release.promote",
                arguments=("release",),
                hidden=("at", "why"),
                confirm="Promote release {release} before its evidence suffices?",
                show=_show_release,
            ),
            "deploy": Bound(
                "deployment.create", arguments=("name", "model"), show=_show_deployment
            ),
            "deployments": Bound(
                "deployment.search",
                columns=(
                    "name=deployment.name", "model", "champion", "previous", "live=live.state",
                    "epoch=deployment.epoch",
                ),
            ),
            "deployment": Bound(
                "deployment.show", arguments=("deployment",), show=_show_deployment
            ),
        },
    ),
)  # fmt: skip

ROLLBACK = Bound(
    "release.rollback",
    arguments=("deployment",),
    hidden=("at", "why"),
    confirm="Take {deployment} back to the version before?",
    show=_show_deployment,
)


class _Commands(dict[str, click.Command]):
    """Makes the command when it is asked for, since it needs the verbs."""

    def __missing__(self, name: str) -> click.Command:
        return make_command(name, {"rollback": ROLLBACK}[name])


COMMANDS = _Commands(release=GROUP)
