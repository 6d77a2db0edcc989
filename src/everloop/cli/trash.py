"""``everloop trash``: what was deleted and can come back, what a purge breaks and frees."""

from __future__ import annotations

from typing import Any

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup
from everloop.cli.session import Session

UNITS = ("bytes", "KB", "MB", "GB", "TB")


def in_words(size_bytes: int) -> str:
    """Return a length in bytes as people read it."""
    value, unit = float(size_bytes), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{size_bytes:,} bytes" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def _show_garbage(answer: Any) -> None:
    output.write(f"{answer.stored:,} blobs are stored, {in_words(answer.stored_bytes)}.")
    output.write(f"Nothing needs {answer.blobs:,} of them, {in_words(answer.size_bytes)}.")
    if answer.young:
        output.write(
            f"Nothing needs {answer.young:,} more, {in_words(answer.young_bytes)}, "
            "that were put lately; they are spared."
        )


def collect_garbage(session: Session, min_age_hours: float, reason: str | None) -> Any:
    """Repeat the steps of a collection until it is done; return what was freed in all."""
    from everloop.govern.collecting import CollectBlobs, Collected

    ask = CollectBlobs(min_age_hours=min_age_hours)
    blobs = freed = spared = 0
    while True:
        done = session.perform("blob.collect", ask, Collected, reason=reason)
        spared += done.spared
        if done.step == "delete":
            blobs, freed = blobs + done.blobs, freed + done.size_bytes
        if done.is_done:
            return Collected(
                step="collect", blobs=blobs, size_bytes=freed, spared=spared, is_done=True
            )


@click.command("collect")
@click.option(
    "--min-age-hours",
    type=click.FloatRange(0),
    default=24.0,
    help="Spare what was put later than this ago. [24]",
)
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def collect(session: Session, min_age_hours: float, reason: str | None, as_json: bool) -> int:
    """Delete the bytes that no record of any project needs.

    May be killed and run again at any time, and runs beside everything else.
    """
    done = collect_garbage(session, min_age_hours, reason)
    if as_json:
        output.write_json(done)
    else:
        output.write(f"{done.blobs:,} blobs deleted, {in_words(done.size_bytes)} freed.")
        if done.spared:
            output.write(f"{done.spared:,} blobs were spared: put lately, or named meanwhile.")
    return 0


TRASH = VerbGroup(
    "trash",
    BoundGroup(
        help="The trash: what was deleted, what a purge would break, and space to free.",
        bound={"garbage": Bound("blob.garbage", show=_show_garbage)},
        written={"collect": collect},
    ),
)
COMMANDS = {"trash": TRASH}
