"""``everloop fleet``: devices in groups, and what they should run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup, to_ask
from everloop.cli.session import Session
from everloop.core.errors import Conflict, EverloopError


def _show_fleet(answer: Any) -> None:
    fleet, release = answer.fleet, answer.release
    output.write_fields(
        {
            "fleet": fleet.name,
            "model": answer.model,
            "target": answer.target,
            "previous": answer.previous,
            "epoch": fleet.epoch,
            "release": None
            if release is None
            else f"{answer.candidate} has reached {fleet.groups[release.stage]}",
            "evidence_it_is_worse": None if release is None else round(release.evidence_bad, 3),
            "why": None if release is None else release.why,
        }
    )
    output.write_table(
        ["group", "should run", "devices", "run it", "refused it"],
        ([g.name, g.wanted, g.devices, g.adopted, g.refused] for g in answer.groups),
    )
    if answer.devices:
        output.write_table(
            ["device", "group", "runs", "last seen", "answers", "note"],
            (
                [d.device.name, d.device.group, d.version, d.device.seen_at, d.device.answers,
                 "revoked" if d.device.revoked_at else d.device.problem]
                for d in answer.devices
            ),
        )  # fmt: skip
    if answer.versions:
        output.write_table(
            ["version", "answers", "errors", "invalid", "mean latency us"],
            (
                [v.version, v.answers, v.errors, v.invalid, v.mean_latency_us]
                for v in answer.versions
            ),
        )


def _show_drift(answer: Any) -> None:
    if answer.report is None:
        output.write(f"Not tested: {answer.why or 'no answers yet'}.")
        return
    output.write_table(
        ["column", "adjusted p", "alarm", "effects"],
        (
            [
                column.column,
                f"{column.adjusted_p:.2g}",
                "alarm" if column.alarm else "",
                ", ".join(
                    f"{name} {value:.3g}"
                    for test in column.tests
                    for name, value in test.effects.items()
                ),
            ]
            for column in answer.report.columns
        ),
    )


@click.command("create")
@click.argument("name")
@click.argument("model")
@click.option("--group", "groups", multiple=True, help="A group, the canary first; repeat it.")
@click.option("--by", type=click.Choice(["person", "evidence"]), help="Who takes the next step.")
@click.option("--min-answers", type=click.IntRange(0), help="Answers before a step.")
@click.option("--min-adopted", type=float, help="Part of a group that must run it before a step.")
@click.option("--max-left", type=float, help="Part that may have tried it and left it.")
@click.option("--soak-hours", type=float, help="Hours in a group before a step.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def create(
    session: Session, /, name: str, model: str, groups: tuple[str, ...], **given: Any
) -> int:
    """Make a fleet of the devices that run MODEL."""
    from everloop.fleet.queries import FleetView

    as_json, given["step"] = given.pop("as_json"), given.pop("by")
    config = {key: value for key, value in given.items() if value is not None}
    ask = to_ask("fleet.create", {"name": name, "model": model, "groups": groups, "config": config})
    made = session.perform("fleet.create", ask, FleetView)
    (output.write_json if as_json else _show_fleet)(made)
    return 0


@click.command("release")
@click.argument("fleet")
@click.argument("version")
@click.option("--mask", multiple=True, help="An input that devices never log.")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def release(
    session: Session,
    /,
    fleet: str,
    version: str,
    mask: tuple[str, ...],
    reason: str | None,
    *,
    as_json: bool,
) -> int:
    """Seal VERSION for devices and begin to bring it to FLEET, its first group first."""
    from everloop.edge.queries import EdgeBundleView
    from everloop.edge.verbs import BuildEdge
    from everloop.fleet.queries import FleetView
    from everloop.fleet.verbs import ReleaseFleet

    built = session.perform("edge.build", BuildEdge(version=version, mask=mask), EdgeBundleView)
    ask = ReleaseFleet(fleet=fleet, digest=built.bundle.digest)
    found = session.perform("fleet.release", ask, FleetView, reason=reason)
    (output.write_json if as_json else _show_fleet)(found)
    return 0


@click.command("enrol")
@click.argument("fleet")
@click.argument("name")
@click.option("--group", help="Its group; the last one when left out.")
@click.option("--days", type=float, default=730.0, show_default=True, help="Life of its token.")
@click.option("--server", required=True, help="Address at which the device reaches this server.")
@click.option(
    "-o",
    "--output",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write: device.json in the device's state folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, without the token.")
@click.pass_obj
def enrol(session: Session, /, fleet: str, name: str, file: Path, **given: Any) -> int:
    """Add the device NAME to FLEET and write the file that makes it one.

    The file holds the device's token, which is shown nowhere else, and the key that it trusts.
    """
    from everloop.cli.exporting import unwritable
    from everloop.fleet.devices import EnrolDevice, EnrolledDevice

    try:
        # Before the device exists: its token is shown once, and must have a place to go to.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Conflict(
            "file.exists", f"{file.name} is there already.", hint="Choose another name."
        ) from error
    except OSError as error:
        raise unwritable(file, error) from error
    ask = EnrolDevice(fleet=fleet, name=name, group=given["group"], days=given["days"])
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        try:
            made = session.perform("device.enrol", ask, EnrolledDevice)
        except EverloopError:
            file.unlink()
            raise
        told = {
            "url": given["server"],
            "project": made.project,
            "fleet": made.fleet,
            "device": made.device.name,
            "token": made.token,
            "key": made.key,
        }
        json.dump(told, out, indent=1)
    shown = {
        "device": f"{made.fleet}/{made.device.name}",
        "group": made.device.group,
        "file": str(file),
        "expires_at": made.expires_at,
        "next": f"python BUNDLE.pyz run --state {file.parent}",
    }
    (output.write_json if given["as_json"] else output.write_fields)(shown)
    return 0


GROUP = VerbGroup(
    "fleet",
    BoundGroup(
        help="Fleets: devices in groups that pull what they should run.",
        bound={
            "list": Bound(
                "fleet.list", columns=("name", "model", "target", "candidate", "devices", "epoch")
            ),
            "show": Bound("fleet.show", arguments=("fleet",), show=_show_fleet),
            "step": Bound(
                "fleet.step",
                arguments=("fleet",),
                hidden=("why",),
                confirm="Bring the release to the next group of {fleet}?",
                show=_show_fleet,
            ),
            "rollback": Bound(
                "fleet.rollback",
                arguments=("fleet",),
                hidden=("why",),
                confirm="Take all devices of {fleet} back?",
                show=_show_fleet,
            ),
            "drift": Bound("fleet.drift", arguments=("fleet", "version"), show=_show_drift),
            "move": Bound("device.move", arguments=("fleet", "name", "group")),
            "revoke": Bound(
                "device.revoke",
                arguments=("fleet", "name"),
                confirm="End the token of {name} for good?",
            ),
            "bundles": Bound(
                "edge.list",
                columns=(
                    "at=bundle.at", "model", "version", "size=bundle.size_bytes",
                    "differ=bundle.parity.different", "digest=bundle.digest",
                ),
            ),
            "key": Bound("edge.key"),
        },
        written={"create": create, "release": release, "enrol": enrol},
    ),
)  # fmt: skip
COMMANDS = {"fleet": GROUP}
