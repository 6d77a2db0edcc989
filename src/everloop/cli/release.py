"""``everloop release`` and ``everloop rollback``: which version answers."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup, make_command
from everloop.cli.completing import completer
from everloop.cli.session import Session

WATCH_S: Final = 2.0


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
            "evidence_it_is_worse": f"{release.evidence_bad:.3g} of {1 / release.config.alpha:.0f}",
            "attempt": release.attempt,
            "alpha_spent": release.alpha_spent,
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
            "halted": _halted(answer),
        }
    )


def _halted(answer: Any) -> str | None:
    halt = answer.deployment.halt
    if halt is None:
        return None
    answers = f"version {answer.pinned}" if answer.pinned else "the champion"
    what = answers if halt.answer is None else f"the constant {halt.answer:g}"
    return f"{what} answers: {halt.why}"


def _show_status(answer: Any) -> None:
    _show_deployment(answer.deployment)
    drill = answer.last_drill
    output.write_fields(
        {
            "held_by": answer.frozen or None,
            "last_drill": None if drill is None else f"{drill.state.value} {drill.why}".strip(),
            "drill_due_at": answer.drill_due_at,
            "is_drill_overdue": answer.is_drill_overdue,
        }
    )
    if answer.release is not None:
        output.write("")
        _show_release(answer.release)


def _show_drill(answer: Any) -> None:
    drill = answer.drill
    output.write_fields(
        {
            "drill": drill.id,
            "deployment": answer.deployment,
            "pinned": answer.version,
            "state": drill.state,
            "started_at": drill.started_at,
            "why": drill.why or None,
        }
    )
    output.write_clean(f"How it ended: everloop release drills {answer.deployment}")


def _line_of(answer: Any) -> str:
    """Return in one line how a deployment stands, for a reader that can't be drawn over."""
    seen, release = answer.deployment, answer.release
    said = [f"champion {seen.champion or '-'}"]
    if seen.deployment.halt is not None:
        said.append(f"halted: {_halted(seen)}")
    if release is not None:
        it = release.release
        said.append(
            f"{it.state.value} {release.candidate} at {it.share:.0%}, evidence it is worse "
            f"{it.evidence_bad:.3g} of {1 / it.config.alpha:.0f}: {it.why}"
        )
    return "; ".join(said)


def _show_history(answer: Any) -> None:
    places = {name: place for place, name in enumerate(answer.figures)}
    output.write_table(
        ("at", "share", "champion", "canary", "evidence it is worse", "turn"),
        [
            (
                from_seconds(point[places["at"]]),
                f"{point[places['share']]:.0%}",
                f"{point[places['champion']]:.0f}",
                f"{point[places['canary']]:.0f}",
                f"{point[places['evidence_bad']]:.3g}",
                "yes" if point[places["turn"]] else "",
            )
            for point in answer.points
        ],
    )


def from_seconds(seconds: float) -> str:
    """Return seconds since 1970 as a time of UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


@click.command("status")
@click.argument("deployment", shell_complete=completer("release.status", "deployment"))
@click.option(
    "--watch",
    is_flag=True,
    help="Go on with each change: drawn over on a terminal, else in a line; ends with Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(session: Session, deployment: str, *, watch: bool, as_json: bool) -> int:
    """Show how a deployment stands: release, kill switch, freeze window and drills."""
    from everloop.release.status import ReleaseStatus, ShowStatus

    ask = ShowStatus(deployment=deployment)
    seen = session.perform("release.status", ask, ReleaseStatus)
    is_drawn = watch and not as_json and sys.stdout.isatty()
    if is_drawn:
        click.clear()
    (output.write_json if as_json else _show_status)(seen)
    sys.stdout.flush()  # who reads by a pipe sees it before the first change, too
    while watch:
        time.sleep(WATCH_S)
        found = session.perform("release.status", ask, ReleaseStatus)
        if found == seen:
            continue
        if as_json:
            output.write_json(found)
        elif is_drawn:
            click.clear()
            _show_status(found)
        elif _line_of(found) != _line_of(seen):
            output.write_clean(_line_of(found))
        sys.stdout.flush()
        seen = found
    return 0


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
            "abort": Bound(
                "release.abort",
                arguments=("release",),
                hidden=("at", "why"),
                confirm="End release {release}? The champion goes on answering.",
                show=_show_release,
            ),
            "history": Bound("release.history", arguments=("release",), show=_show_history),
            "halt": Bound(
                "deployment.halt",
                arguments=("deployment",),
                hidden=("why",),
                confirm="Halt {deployment}? Its live release ends, and none begins.",
                show=_show_deployment,
            ),
            "resume": Bound(
                "deployment.resume", arguments=("deployment",), show=_show_deployment
            ),
            "drill": Bound(
                "deployment.drill",
                arguments=("deployment",),
                confirm="Let another version of {deployment} answer for a moment?",
                show=_show_drill,
            ),
            "drills": Bound(
                "deployment.drills",
                arguments=("deployment",),
                columns=(
                    "started=drill.started_at", "pinned=version", "state=drill.state",
                    "switch_ms=drill.switch_ms", "return_ms=drill.return_ms", "why=drill.why",
                ),
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
        written={"status": status},
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
