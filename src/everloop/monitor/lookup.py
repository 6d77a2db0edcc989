"""Finds what grows with time without reading all of it: places in a sequence, and in a log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from everloop.core.ids import Id
from everloop.core.ports import Compare, Condition, where
from everloop.kernel.unit_of_work import View, Work
from everloop.monitor.model import FeedbackBatch, PredictedKey, PredictionSegment, Tally

PAGE = 8
KEYS_AT_ONCE = 500
NOT_YET = Id("")


def last_seq(view: View, kind: type[PredictionSegment | FeedbackBatch], deployment: Id) -> int:
    """Return the highest number of a deployment's segments or batches; 0 before the first."""
    newest = view.select(kind, *where(deployment=deployment), order="seq", descending=True, limit=1)
    return newest[0].seq if newest else 0


def segments_around(view: View, prediction: Id) -> Iterator[PredictionSegment]:
    """Yield the segments whose ids span an id, the likeliest first.

    Ids increase with time, so what holds it is among the first that end after it.
    """
    last: PredictionSegment | None = None
    while True:
        page = view.select(
            PredictionSegment,
            Condition("last_id", Compare.GE, prediction),
            Condition("first_id", Compare.LE, prediction),
            order="last_id",
            limit=PAGE,
            after=last,
        )
        yield from page
        if len(page) < PAGE:
            return
        last = page[-1]


def keep_keys(work: Work, segment: PredictionSegment, keys: dict[str, Id]) -> None:
    """Note which predictions of a new segment business keys name."""
    work.insert_many(
        [
            PredictedKey(
                id=work.new_id(),
                project=work.project,
                deployment=segment.deployment,
                segment=segment.id,
                key=_key_digest(key),
                prediction=prediction,
            )
            for key, prediction in keys.items()
        ]
    )


def drop_keys(work: Work, segment: PredictionSegment) -> None:
    """Forget the business keys of a segment."""
    for row in work.select(PredictedKey, *where(segment=segment.id)):
        work.delete(row)


def newest_of_keys(view: View, deployment: Id, keys: Iterable[str]) -> dict[str, Id]:
    """Return the newest prediction of each business key that is known."""
    by_digest = {_key_digest(key): key for key in keys}
    digests = list(by_digest)
    found: dict[str, Id] = {}
    for start in range(0, len(digests), KEYS_AT_ONCE):
        wanted = Condition("key", Compare.IN, tuple(digests[start : start + KEYS_AT_ONCE]))
        for row in view.select(PredictedKey, *where(deployment=deployment), wanted):
            key = by_digest[row.key]
            # Segments of several workers overlap in time.
            found[key] = max(row.prediction, found.get(key, row.prediction))
    return found


def _key_digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def tally_of(view: View, deployment: Id) -> Tally:
    """Return how much was served; counted anew where nobody has kept count."""
    found = view.first(Tally, *where(deployment=deployment))
    if found is not None:
        return found
    segments = view.select(PredictionSegment, *where(deployment=deployment))
    return Tally(
        id=NOT_YET,
        project=view.project,
        deployment=deployment,
        predictions=sum(segment.rows for segment in segments),
        labelled=sum(segment.labelled for segment in segments),
        dropped=sum(segment.dropped for segment in segments),
    )


def keep_tally(
    work: Work, before: Tally, *, predictions: int = 0, labelled: int = 0, dropped: int = 0
) -> None:
    """Count more of what is served; ``before`` was read before it was stored."""
    after = replace(
        before,
        predictions=before.predictions + predictions,
        labelled=before.labelled + labelled,
        dropped=before.dropped + dropped,
    )
    if before.id == NOT_YET:
        work.insert(replace(after, id=work.new_id()))
    else:
        work.replace(after)
