"""The verb by which a release learns what happened: it goes on, steps up, or ends.

A promoted release is still told while its watch lasts, and taken back when the evidence says so.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, structs

from everloop.core.clock import Instant
from everloop.core.errors import StaleVersion
from everloop.kernel.unit_of_work import Work
from everloop.kernel.verbs import Payload, verb
from everloop.release import history, moving, watching
from everloop.release.allowing import frozen_now
from everloop.release.decision import Outside, deadline_of, decide
from everloop.release.model import UNDATED, Deployment, Limits, News, Release, State, Tally
from everloop.release.queries import Name, ReleaseView, get_release, live_release, view_release

Cursor = Annotated[int, Meta(ge=0)]


class ObserveRelease(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened to a live release between two places of the segments and the feedback.

    Attributes:
        after_segment: The release's cursor from which the news were read.
        cursor_segment: Up to where they were read.
        limits: Figures of the champion that are known now; the first ones count.
        record: The champion's answers before the release, by guardrail, likewise.
        is_resident: Whether the servers hold the candidate, loaded and proven by its golden rows;
            None when nobody knows.
        refused: Why a server refused the candidate.
        at: Event time up to which everything is known; the wall clock when None.
    """

    release: Name
    after_segment: Cursor
    after_feedback: Cursor
    cursor_segment: Cursor
    cursor_feedback: Cursor
    news: News = News()
    limits: Limits = Limits()
    record: dict[str, Tally] | None = None
    is_resident: bool | None = None
    refused: Annotated[str, Meta(max_length=500)] = ""
    at: Instant | None = None


@verb("release.observe", permission="release:admin", payload=Payload.DIGEST)
def observe_release(ask: ObserveRelease, work: Work) -> ReleaseView:
    """Take in what happened and decide: go on, step up, promote, or end the release.

    A promoted release is taken back while its watch lasts, when the evidence says so. News that
    were taken in before, and news of a release that ended otherwise, change nothing.

    Raises:
        NotFound: ``release.not_found``.
        StaleVersion: ``release.cursor_moved`` when the news overlap with what is known, or leave
            a gap.
    """
    release = get_release(work, ask.release)
    at = ask.at or work.now
    if release.deadline == UNDATED:
        release = structs.replace(release, deadline=deadline_of(release.config, at))
    deployment = work.get(Deployment, release.deployment)
    is_watched = deployment.watched == release.id
    if release.live is None and not is_watched:
        return view_release(work, release)
    outside = Outside(
        frozen=frozen_now(work, release.config),
        is_resident=ask.is_resident,
        refused=ask.refused,
    )
    is_known = (ask.cursor_segment, ask.cursor_feedback) == _cursors(release)
    is_moved = ask.refused or (ask.is_resident and release.state is State.STANDBY)
    if is_known and not is_moved and (is_watched or at < release.deadline):
        return view_release(work, release)
    _require_next(ask, release)
    release = _with_record(release, ask, deployment)
    decision = decide(release, News() if is_known else ask.news, at, outside)
    if is_known and not decision.is_new and decision.why == release.why:
        return view_release(work, release)  # held past its deadline: said once
    work.touch(f"release:{release.id}", f"deployment:{release.deployment}")
    release = structs.replace(
        release,
        limits=_known_limits(release.limits, ask.limits),
        standing=decision.standing,
        findings=decision.findings,
        evidence_bad=decision.evidence_bad,
        cursor_segment=ask.cursor_segment,
        cursor_feedback=ask.cursor_feedback,
        updated_at=at,
        why=decision.why,
    )
    history.keep(work, release, at, is_turn=decision.is_new)
    if is_watched and decision.is_new:
        after = _undo(work, release, decision.why, at)
    else:
        after = moving.apply(work, release, decision, at)
    if decision.is_new:
        work.decide(after.state.value, after.why)
        work.touch(f"model_version:{after.candidate}")
    return view_release(work, after)


def _undo(work: Work, release: Release, why: str, at: Instant) -> Release:
    """Take a promotion back; a release that was begun meanwhile has lost its champion and ends."""
    work.replace(release)
    deployment = work.get(Deployment, release.deployment)
    live = live_release(work, deployment)
    if live is not None:
        moving.end(work, live, State.ROLLED_BACK, f"Its champion was undone. {why}", at)
        deployment = work.get(Deployment, release.deployment)
    moving.restore(work, deployment, why, at)
    return work.get(Release, release.id)


def _with_record(release: Release, ask: ObserveRelease, deployment: Deployment) -> Release:
    """Return the release with the champion's record, told once; a watch begins with it."""
    if release.record is not None or ask.record is None:
        return release
    standing = release.standing
    watch = standing.watch
    if watch is not None and deployment.watched == release.id:
        begun = watching.begin(release.config, ask.record, until=watch.until, epoch=watch.epoch)
        standing = structs.replace(standing, watch=begun)
    return structs.replace(release, record=ask.record, standing=standing)


def _known_limits(known: Limits, told: Limits) -> Limits:
    with_loss = told if known.loss is None else known
    return Limits(
        latency_us=known.latency_us or told.latency_us,
        loss=with_loss.loss,
        loss_name=with_loss.loss_name,
        low=told.low if known.low is None else known.low,
        high=told.high if known.high is None else known.high,
    )


def _cursors(release: Release) -> tuple[int, int]:
    return release.cursor_segment, release.cursor_feedback


def _require_next(ask: ObserveRelease, release: Release) -> None:
    starts, known = (ask.after_segment, ask.after_feedback), _cursors(release)
    if starts != known or ask.cursor_segment < known[0] or ask.cursor_feedback < known[1]:
        raise StaleVersion(
            "release.cursor_moved",
            f"The news begin after {starts}; the release has seen up to {known}.",
            hint="Read the release again and collect the news from its cursors.",
        )
