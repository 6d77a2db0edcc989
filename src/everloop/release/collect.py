"""From logged answers and late labels to what a release is told.

Only answers of this release count: the champion and the candidate named in it, under routes since
it started, while the candidate had a share of the traffic or ran in the shadow. The order is kept,
and each answer and each label must be given once; the cursors of ``release.observe`` see to that.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from everloop.core.ids import Id
from everloop.core.wire import Arm, PredictionRow, Status
from everloop.release.model import Assigned, BadEvent, Guardrail, Limits, News, Pair, Release

MIN_LATENCIES = 100
MARK_BYTES = 8
LATENCY_QUANTILE = 0.99


class Judged(Struct, frozen=True, kw_only=True):
    """One labelled answer with its losses; None where there was no answer to judge.

    Attributes:
        epoch: Which routes were in force at the request.
    """

    epoch: int
    version: Id
    arm: Arm
    share: float
    loss: float | None
    unit: str | None = None
    shadow_version: Id | None = None
    shadow_loss: float | None = None


def news_of_rows(release: Release, rows: Iterable[PredictionRow]) -> News:
    """Return the traffic and the bad events that show without a label."""
    assigned: Counter[tuple[Arm, float, str | None]] = Counter()
    events: list[BadEvent] = []
    pairs: list[Pair] = []
    for row in rows:
        if row.epoch < release.epoch:
            continue
        has_failed = row.shadow_output is None and row.shadow_status is not None
        if has_failed and _is_paired(release, row.version, row.shadow_version):
            # No label is needed to know that no answer is the worst answer.
            pairs.append(Pair(champion=0.0, candidate=1.0))
        if _is_split(release, row.version, row.arm, row.share):
            unit = _mark(release, row.unit)
            assigned[row.arm, row.share, unit] += 1
            events.extend(
                BadEvent(guardrail=guardrail, arm=row.arm, share=row.share, unit=unit)
                for guardrail in _faults(release.limits, row)
            )
    parts = tuple(
        Assigned(arm=arm, share=share, unit=unit, count=count)
        for (arm, share, unit), count in assigned.items()
    )
    return News(assigned=parts, events=tuple(events), pairs=tuple(pairs))


def news_of_labels(release: Release, labelled: Iterable[Judged]) -> News:
    """Return the losses that labels show: bad events of either arm, and pairs."""
    bound = release.limits.loss
    if bound is None:
        return News()
    events: list[BadEvent] = []
    pairs: list[Pair] = []
    for found in labelled:
        if found.epoch < release.epoch or found.loss is None:
            continue
        is_paired = _is_paired(release, found.version, found.shadow_version)
        if is_paired and found.shadow_loss is not None:
            pairs.append(
                Pair(
                    champion=min(found.loss / bound, 1.0),
                    candidate=min(found.shadow_loss / bound, 1.0),
                )
            )
        if _is_split(release, found.version, found.arm, found.share) and found.loss > bound:
            events.append(
                BadEvent(
                    guardrail=Guardrail.LABEL_LOSS,
                    arm=found.arm,
                    share=found.share,
                    unit=_mark(release, found.unit),
                )
            )
    return News(events=tuple(events), pairs=tuple(pairs))


def find_latency_limit(rows: Sequence[PredictionRow], champion: Id) -> float | None:
    """Return the champion's 99th percentile of latency in us; None from fewer than 100 answers."""
    latencies = sorted(
        row.latency_us for row in rows if row.version == champion and row.status is Status.OK
    )
    if len(latencies) < MIN_LATENCIES:
        return None
    return max(1.0, float(latencies[int(LATENCY_QUANTILE * (len(latencies) - 1))]))


def _mark(release: Release, unit: str | None) -> str | None:
    """Return what stands for a unit in the release's records, which need not know who it is."""
    if unit is None:
        return None
    key = release.id.encode()[:64]
    text = unit.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=MARK_BYTES, key=key).hexdigest()


def _faults(limits: Limits, row: PredictionRow) -> list[Guardrail]:
    if row.status is Status.ERROR:
        return [Guardrail.ERROR]
    faults = [Guardrail.INVALID] if row.status is Status.INVALID else []
    if limits.latency_us is not None and row.latency_us > limits.latency_us:
        faults.append(Guardrail.LATENCY)
    return faults


def _is_paired(release: Release, version: Id, shadow_version: Id | None) -> bool:
    # The champion's answers are shadowed during the canary, too, and old labels still come in. That
    # one label may speak twice is no harm: a mean of e-processes may depend on each other.
    is_shadowed = release.standing.paired is not None and shadow_version == release.candidate
    return is_shadowed and version == release.champion


def _is_split(release: Release, version: Id, arm: Arm, share: float) -> bool:
    expected = release.candidate if arm is Arm.CANARY else release.champion
    return 0 < share < 1 and version == expected
