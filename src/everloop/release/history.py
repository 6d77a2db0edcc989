"""How a release went over time, kept small enough to be drawn years later.

One row of figures for each look at new answers. When there are too many, every second one goes,
and from then on a point stands for twice as many looks; turns of the release are always kept.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct, structs

from everloop.core.clock import Instant
from everloop.core.ports import where
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query
from everloop.release.eprocess import BadEventProcess
from everloop.release.model import Guardrail, Release, ReleaseHistory
from everloop.release.queries import Name, get_release
from everloop.release.weighing import PAIRED, WATCH, processes_of

MOST_POINTS: Final = 240
DIGITS: Final = 5
BEFORE: Final = ("at", "share", "champion", "canary", "evidence_bad", "turn")
PROCESSES: Final = (*(guardrail.value for guardrail in Guardrail), PAIRED, WATCH)
FIGURES: Final = (
    *BEFORE,
    *(f"{part}:{name}" for name in PROCESSES for part in ("bad", "good")),
)
Point = tuple[float | None, ...]
_TURN: Final = BEFORE.index("turn")
_LOG10: Final = 0.4342944819032518


class ShowHistory(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release by id."""

    release: Name


class History(Struct, frozen=True, kw_only=True):
    """How a release went.

    Attributes:
        figures: Names of a point's values: time in seconds since 1970, share, answers by arm,
            combined evidence, whether the release took a turn there, and for each guardrail the
            base-10 logarithms of the evidence that the candidate is worse (``bad``), and that it
            is not (``good``).
        points: Oldest first.
        rollback_at: Evidence that rolls the release back.
        promote_at: Evidence that proves a guardrail.
    """

    figures: tuple[str, ...]
    points: tuple[Point, ...]
    rollback_at: float
    promote_at: float


@query("release.history", permission="release:read")
def show_history(ask: ShowHistory, view: View) -> History:
    """Show how the traffic and the evidence of a release went over time.

    Raises:
        NotFound: ``release.not_found``.
    """
    release = get_release(view, ask.release)
    found = view.first(ReleaseHistory, *where(release=release.id))
    return History(
        figures=FIGURES,
        points=found.points if found else (),
        rollback_at=1.0 / release.config.alpha,
        promote_at=1.0 / release.config.beta,
    )


def keep(work: Work, release: Release, at: Instant, *, is_turn: bool) -> None:
    """Add a point for what a release stands at now."""
    found = work.first(ReleaseHistory, *where(release=release.id))
    point = point_of(release, at, is_turn=is_turn)
    if found is None:
        fresh = ReleaseHistory(
            id=work.new_id(), project=work.project, release=release.id, points=(point,), looks=1
        )
        work.insert(fresh)
    else:
        work.replace(add(found, point))


def add(found: ReleaseHistory, point: Point) -> ReleaseHistory:
    """Return a history with one more look; the newest point always stands for now."""
    points, every = found.points, found.every
    if found.looks % every and points and not points[-1][_TURN]:
        points = points[:-1]
    points = (*points, point)
    if len(points) > MOST_POINTS:
        points, every = _thin(points), every * 2
    return structs.replace(found, points=points, every=every, looks=found.looks + 1)


def _thin(points: tuple[Point, ...]) -> tuple[Point, ...]:
    last = len(points) - 1
    kept = tuple(
        point
        for place, point in enumerate(points)
        if place in {0, last} or place % 2 == 0 or point[_TURN]
    )
    # Turns are few; should they ever fill the picture, the oldest go.
    return kept[-MOST_POINTS:]


def point_of(release: Release, at: Instant, *, is_turn: bool) -> Point:
    """Return the figures of a release at an instant."""
    standing = release.standing
    logs: dict[str, tuple[float, float]] = {
        name: (process.log_evidence_bad, process.log_evidence_good)
        for name, process in processes_of(standing).items()
    }
    if standing.watch is not None and standing.watch.guardrails:
        worst = max(standing.watch.guardrails.values(), key=_bad)
        logs[WATCH] = (worst.log_evidence_bad, worst.log_evidence_good)
    values: list[float | None] = [
        at.timestamp(),
        release.share,
        float(standing.traffic.champion),
        float(standing.traffic.canary),
        _rounded(release.evidence_bad),
        float(is_turn),
    ]
    for name in PROCESSES:
        bad, good = logs.get(name, (None, None))
        values += [_to_log10(bad), _to_log10(good)]
    return tuple(values)


def _bad(process: BadEventProcess) -> float:
    return process.log_evidence_bad


def _to_log10(value: float | None) -> float | None:
    return None if value is None else _rounded(value * _LOG10)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
