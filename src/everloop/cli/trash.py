"""``everloop trash``: what was deleted and can come back, what a purge breaks and frees."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup
from everloop.cli.failures import exit_code
from everloop.cli.session import Session
from everloop.core.errors import Conflict, Denied

UNITS = ("bytes", "KB", "MB", "GB", "TB")
SHOWN = 50
_AGE = re.compile(r"(\d+(?:\.\d+)?)([dhw]?)")
_DAYS = {"": 1.0, "d": 1.0, "h": 1 / 24, "w": 7.0}


def in_words(size_bytes: int) -> str:
    """Return a length in bytes as people read it."""
    value, unit = float(size_bytes), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{size_bytes:,} bytes" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


class Age(click.ParamType[float]):
    """A length of time in days: ``30d``, ``12h``, ``2w`` or a number."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the days."""
        if isinstance(value, float):
            return value
        found = _AGE.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no age; write 30d, 12h or 2w.", param, ctx)
        return float(found[1]) * _DAYS[found[2]]


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


def _say_collected(done: Any) -> None:
    output.write(f"{done.blobs:,} blobs deleted, {in_words(done.size_bytes)} freed.")
    if done.spared:
        output.write(f"{done.spared:,} blobs were spared: put lately, or named meanwhile.")


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
        _say_collected(done)
    return 0


def _selection(command: Any) -> Any:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--ignore-grace", is_flag=True, help="Also what was deleted lately."),
        click.option(
            "--older-than", type=Age(), default="0d", help="Only what was deleted this long ago."
        ),
        click.argument("refs", nargs=-1),
    ):
        command = option(command)
    return command


@click.command("plan")
@_selection
@click.pass_obj
def plan(
    session: Session,
    /,
    refs: tuple[str, ...],
    older_than: float,
    ignore_grace: bool,
    as_json: bool,
) -> int:
    """Say what a purge would remove, refuse, break and free; change nothing.

    REFS name what to purge, as run:<id>; everything in the trash when left out.
    """
    from everloop.govern.trash import PlanPurge, PurgePlan

    ask = PlanPurge(refs=refs, older_than_days=older_than, ignore_grace=ignore_grace)
    told = session.perform("trash.plan", ask, PurgePlan)
    if as_json:
        output.write_json(told)
        return 0
    output.write_table(
        ("thing", "what", "deleted at", "records", "refused because"),
        [
            (
                item.ref,
                item.title,
                item.deleted_at,
                sum(item.rows.values()),
                "; ".join(_hold_text(hold) for hold in item.holds) or None,
            )
            for item in told.items[:SHOWN]
        ],
    )
    for item in told.items[:SHOWN]:
        for mention in item.mentions if not item.holds else ():
            output.write_clean(f"{item.ref} would be missing for {mention}")
    output.write(
        f"{told.purged:,} things with {told.rows:,} records would go, {told.refused:,} would be "
        f"refused; {told.blobs:,} blobs, {in_words(told.freed_bytes)}, would be free."
    )
    return 0


def _hold_text(hold: Any) -> str:
    return f"{hold.why} Until {hold.until:%Y-%m-%d}." if hold.until else hold.why


@click.command("purge")
@_selection
@click.option("--reason", help="Why, for the record; needed with --ignore-grace.")
@click.option("--keep-bytes", is_flag=True, help="Leave files and database as large as they are.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(
    session: Session,
    /,
    refs: tuple[str, ...],
    older_than: float,
    ignore_grace: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Remove things in the trash for good, then free their space.

    REFS name what to purge, as run:<id>; everything in the trash when left out.
    """
    from everloop.cli.binding import confirm
    from everloop.govern.trash import Purged, PurgeTrash

    reason = given["reason"]
    if not given["yes"]:
        confirm("Remove this for good? `everloop trash plan` says what goes.")
    ask = PurgeTrash(refs=refs, older_than_days=older_than, ignore_grace=ignore_grace)
    gone: list[str] = []
    rows = 0
    while True:
        done = session.perform("trash.purge", ask, Purged, reason=reason)
        gone += done.things
        rows += done.rows
        if not done.more:
            break
        left = tuple(ref for ref in refs if ref not in gone)
        ask = PurgeTrash(refs=left, older_than_days=older_than, ignore_grace=ignore_grace)
    freed = None if given["keep_bytes"] or not gone else _free(session, reason)
    # Whoever names things hears by the exit code that one of them stayed.
    code = exit_code(Conflict) if refs and done.refused else 0
    if as_json:
        output.write_json(
            {"things": gone, "rows": rows, "refused": done.refused, "collected": freed}
        )
        return code
    output.write(f"{len(gone):,} things with {rows:,} records are gone.")
    for refused in done.refused[:SHOWN]:
        words = "; ".join(_hold_text(hold) for hold in refused.holds)
        output.write_clean(f"kept: {refused.ref}: {words}")
    if freed is not None:
        _say_collected(freed)
    return code


def _free(session: Session, reason: str | None) -> Any:
    """Collect what nothing names any more and shrink the database, if one may."""
    from everloop.govern.collecting import MIN_AGE_HOURS, Compacted, CompactStore

    with suppress(Denied):
        done = collect_garbage(session, MIN_AGE_HOURS, reason)
        session.perform("store.compact", CompactStore(), Compacted, reason=reason)
        return done
    output.write("The space is freed when an admin of the instance runs `everloop trash collect`.")
    return None


TRASH = VerbGroup(
    "trash",
    BoundGroup(
        help="The trash: what was deleted, what a purge would break, and space to free.",
        bound={
            "list": Bound(
                "trash.list", columns=("thing=ref", "what=title", "deleted_at", "purgeable_at")
            ),
            "garbage": Bound("blob.garbage", show=_show_garbage),
            "compact": Bound("store.compact"),
        },
        written={"plan": plan, "purge": purge, "collect": collect},
    ),
)
COMMANDS = {"trash": TRASH}
