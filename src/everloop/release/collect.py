"""From logged answers and late labels to what a release is told.

Only answers of this release count: the champion and the candidate named in it, under routes since
it started, while the candidate had a share of the traffic or ran in the shadow; and what the
candidate answers after its promotion, while it is watched. The order is kept, and each answer and
each label must be given once; the cursors of ``release.observe`` see to that.

Answers that were not assigned independently speak with one voice: those to one unit, those to
retries of one request, and those to the rows of one request.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from everloop.core.ids import Id, is_id
from everloop.core.wire import Arm, PredictionRow, Status
from everloop.release.model import (
    Assigned,
    BadEvent,
    Guardrail,
    Judgement,
    Limits,
    News,
    Pair,
    Release,
    Tally,
)

MIN_LATENCIES = 100
MARK_BYTES = 8
LATENCY_QUANTILE = 0.99
RANGE_QUANTILE = 0.005
FIRST_ROW = "0000"
"""How the id of a request's first row ends; its other rows count up from there."""


class Judged(Struct, frozen=True, kw_only=True):
    """One labelled answer with its losses; None where there was no answer to judge.

    Attributes:
        epoch: Which routes were in force at the request.
        prediction: Id of the answer.
        overridden: Whether a person decided otherwise than the answer said.
    """

    epoch: int
    version: Id
    arm: Arm
    share: float
    loss: float | None
    prediction: Id | None = None
    unit: str | None = None
    request: str | None = None
    overridden: bool = False
    shadow_version: Id | None = None
    shadow_loss: float | None = None


def news_of_rows(release: Release, rows: Sequence[PredictionRow]) -> News:
    """Return the traffic and the bad events that show without a label."""
    assigned: Counter[tuple[Arm, float, str | None]] = Counter()
    events: list[BadEvent] = []
    pairs = _Pairs()
    watched = _Judgements(answers_judge(release.limits))
    voices = _Voices(release, ((row.id, row.request) for row in rows))
    for row in rows:
        if row.epoch < release.epoch:
            continue
        if row.shadow_status and _is_paired(release, row.version, row.shadow_version):
            pairs.add(_pair_of_row(row), voices.mark(row.id, None, row.request))
        if _is_split(release, row.version, row.arm, row.share):
            unit = voices.mark(row.id, row.unit, row.request)
            assigned[row.arm, row.share, unit] += 1
            events.extend(
                BadEvent(guardrail=guardrail, arm=row.arm, share=row.share, unit=unit)
                for guardrail in faults_of(release.limits, row)
            )
        elif _is_watched(release, row.version, row.epoch):
            unit = voices.mark(row.id, row.unit, row.request)
            watched.add(faults_of(release.limits, row), unit)
    parts = tuple(
        Assigned(arm=arm, share=share, unit=unit, count=count)
        for (arm, share, unit), count in assigned.items()
    )
    return News(assigned=parts, events=tuple(events), pairs=pairs.told(), watched=watched.told())


def news_of_labels(release: Release, labelled: Sequence[Judged]) -> News:
    """Return what labels show: bad events of either arm, and pairs."""
    bound = release.limits.loss
    events: list[BadEvent] = []
    pairs = _Pairs()
    watched = _Labels(release.limits)
    voices = _Voices(release, ((found.prediction, found.request) for found in labelled))
    for found in labelled:
        if found.epoch < release.epoch:
            continue
        if _is_paired(release, found.version, found.shadow_version):
            voice = voices.mark(found.prediction, None, found.request)
            pairs.add(_pair_of_label(found, bound), voice)
        faults = faults_of_label(release.limits, found)
        if _is_split(release, found.version, found.arm, found.share):
            unit = voices.mark(found.prediction, found.unit, found.request)
            events.extend(
                BadEvent(guardrail=guardrail, arm=found.arm, share=found.share, unit=unit)
                for guardrail in faults
            )
        elif _is_watched(release, found.version, found.epoch):
            watched.add(found, voices.mark(found.prediction, found.unit, found.request))
    return News(events=tuple(events), pairs=pairs.told(), watched=watched.told())


def find_record(
    release: Release, rows: Sequence[PredictionRow], labelled: Sequence[Judged]
) -> dict[str, Tally]:
    """Return what the champion's answers before the release were like, by guardrail.

    Each unit speaks once, with its first answer, as in the watch that this is compared with.
    """
    judgements = _Judgements(answers_judge(release.limits))
    voices = _Voices(release, ((row.id, row.request) for row in rows))
    for row in rows:
        if row.version == release.champion and row.epoch < release.epoch:
            mark = voices.mark(row.id, row.unit, row.request)
            judgements.add(faults_of(release.limits, row), mark)
    late = _Labels(release.limits)
    voices = _Voices(release, ((found.prediction, found.request) for found in labelled))
    for found in labelled:
        if found.version == release.champion and found.epoch < release.epoch:
            mark = voices.mark(found.prediction, found.unit, found.request)
            late.add(found, mark)
    sums: dict[str, Tally] = {}
    for one in (*judgements.told(), *late.told()):
        before = sums.get(one.guardrail.value, Tally())
        sums[one.guardrail.value] = Tally(
            answers=before.answers + one.answers, bad=before.bad + one.bad
        )
    return sums


def find_latency_limit(rows: Sequence[PredictionRow], champion: Id) -> float | None:
    """Return the champion's 99th percentile of latency in us; None from fewer than 100 answers."""
    latencies = sorted(
        row.latency_us for row in rows if row.version == champion and row.status is Status.OK
    )
    if len(latencies) < MIN_LATENCIES:
        return None
    return max(1.0, float(latencies[int(LATENCY_QUANTILE * (len(latencies) - 1))]))


def find_range(rows: Sequence[PredictionRow], champion: Id) -> tuple[float, float] | None:
    """Return the champion's half and 99.5th percentile of answers; None from fewer than 100."""
    outputs = sorted(
        row.output
        for row in rows
        if row.version == champion and row.status is Status.OK and row.output is not None
    )
    if len(outputs) < MIN_LATENCIES:
        return None
    last = len(outputs) - 1
    return outputs[int(RANGE_QUANTILE * last)], outputs[-1 - int(RANGE_QUANTILE * last)]


def faults_of(limits: Limits, row: PredictionRow) -> list[Guardrail]:
    """Return which bad events an answer is, as far as that shows without a label."""
    if row.status is Status.ERROR:
        return [Guardrail.ERROR]
    faults = [Guardrail.INVALID] if row.status is Status.INVALID else []
    if limits.latency_us is not None and row.latency_us > limits.latency_us:
        faults.append(Guardrail.LATENCY)
    if not faults and row.output is not None and _is_outside(limits, row.output):
        faults.append(Guardrail.RANGE)
    return faults


def faults_of_label(limits: Limits, found: Judged) -> list[Guardrail]:
    """Return which bad events a labelled answer is."""
    faults = []
    if limits.loss is not None and found.loss is not None and found.loss > limits.loss:
        faults.append(Guardrail.LABEL_LOSS)
    if found.overridden:
        faults.append(Guardrail.OVERRIDE)
    return faults


def answers_judge(limits: Limits) -> tuple[Guardrail, ...]:
    """Return the guardrails that an answer by itself says something of."""
    known = [Guardrail.ERROR, Guardrail.INVALID]
    if limits.latency_us is not None:
        known.append(Guardrail.LATENCY)
    if limits.low is not None:
        known.append(Guardrail.RANGE)
    return tuple(known)


class _Judgements:
    """Answers of one version, added up; each unit counts with its first one."""

    def __init__(self, guardrails: Sequence[Guardrail]) -> None:
        self._guardrails = guardrails
        self._answers = 0
        self._bad: Counter[Guardrail] = Counter()
        self._units: dict[str, frozenset[Guardrail]] = {}

    def add(self, faults: Iterable[Guardrail], unit: str | None) -> None:
        """Count an answer."""
        if unit is None:
            self._answers += 1
            self._bad.update(faults)
        else:
            self._units.setdefault(unit, frozenset(faults))

    def told(self) -> tuple[Judgement, ...]:
        """Return what was counted."""
        sums = [
            Judgement(guardrail=guardrail, answers=self._answers, bad=self._bad[guardrail])
            for guardrail in self._guardrails
            if self._answers
        ]
        units = [
            Judgement(guardrail=guardrail, bad=int(guardrail in faults), unit=unit)
            for unit, faults in self._units.items()
            for guardrail in self._guardrails
        ]
        return (*sums, *units)


class _Labels:
    """Labelled answers of one version: those with a loss, and all, since any may be overridden."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._losses = _Judgements((Guardrail.LABEL_LOSS,))
        self._overrides = _Judgements((Guardrail.OVERRIDE,))

    def add(self, found: Judged, unit: str | None) -> None:
        """Count a labelled answer."""
        faults = faults_of_label(self._limits, found)
        self._overrides.add(faults, unit)
        if self._limits.loss is not None and found.loss is not None:
            self._losses.add(faults, unit)

    def told(self) -> tuple[Judgement, ...]:
        """Return what was counted."""
        return (*self._losses.told(), *self._overrides.told())


class _Voices:
    """Who speaks with one voice among answers that come together.

    Retries come soon after each other, so a request's own id is looked for among these alone: to
    remember all of them would fill the release's memory with requests that came once.
    """

    def __init__(self, release: Release, found: Iterable[tuple[Id | None, str | None]]) -> None:
        self._key = release.id.encode()[:64]
        self._many: set[str] = set()
        once: set[str] = set()
        self._again: set[str] = set()
        for key, request in found:
            if key is not None and is_id(key) and not key.endswith(FIRST_ROW):
                self._many.add(_first_of(key))
            if request is not None:
                (self._again if request in once else once).add(request)

    def mark(self, key: Id | None, unit: str | None, request: str | None) -> str | None:
        """Return what stands for the speaker, without naming them; None for one who is alone."""
        if unit is not None:
            return self._hash(unit)
        has_more = key is not None and is_id(key) and _first_of(key) in self._many
        if request is not None and (has_more or request in self._again):
            return self._hash(f"request\x00{request}")
        return self._hash(_first_of(key)) if key is not None and has_more else None

    def _hash(self, text: str) -> str:
        encoded = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(encoded, digest_size=MARK_BYTES, key=self._key).hexdigest()


def _first_of(key: Id) -> str:
    return key[: -len(FIRST_ROW)] + FIRST_ROW


def _is_outside(limits: Limits, output: float) -> bool:
    return (limits.low is not None and output < limits.low) or (
        limits.high is not None and output > limits.high
    )


def _is_paired(release: Release, version: Id, shadow_version: Id | None) -> bool:
    # The champion's answers are shadowed during the canary, too, and old labels still come in. That
    # one label may speak twice is no harm: a mean of e-processes may depend on each other.
    is_shadowed = release.standing.paired is not None and shadow_version == release.candidate
    return is_shadowed and version == release.champion


def _pair_of_row(row: PredictionRow) -> Pair | None:
    """Return what is known without a label: no answer is the worst answer, whoever gave none."""
    has_answer = row.output is not None or row.outputs is not None
    has_shadow = row.shadow_output is not None or row.shadow_outputs is not None
    if has_answer == has_shadow:
        return None  # Both answered, and the label will tell; or both failed alike.
    return Pair(champion=float(not has_answer), candidate=float(not has_shadow))


def _pair_of_label(found: Judged, bound: float | None) -> Pair | None:
    """Return what both versions lost on one row, as parts of the bound."""
    if bound is None or found.loss is None or found.shadow_loss is None:
        return None
    return Pair(
        champion=min(found.loss / bound, 1.0), candidate=min(found.shadow_loss / bound, 1.0)
    )


class _Pairs:
    """One pair for each request, in the order in which they were learned.

    A model is asked once for all rows of a request: it fails at all of them at once, and rows that
    were asked together are often of one unit or one hour. Each by itself, a single hiccup would be
    as much evidence as a thousand. Their mean is within the same bounds, and one fair bet.
    """

    def __init__(self) -> None:
        self._found: list[tuple[str | None, list[Pair]]] = []
        self._by_voice: dict[str, list[Pair]] = {}

    def add(self, pair: Pair | None, voice: str | None) -> None:
        """Take in a row; None for one that says nothing."""
        if pair is None:
            return
        known = None if voice is None else self._by_voice.get(voice)
        if known is None:
            known = []
            self._found.append((voice, known))
            if voice is not None:
                self._by_voice[voice] = known
        known.append(pair)

    def told(self) -> tuple[Pair, ...]:
        """Return a pair for each voice: the mean of what its rows say."""
        return tuple(
            Pair(
                champion=sum(pair.champion for pair in pairs) / len(pairs),
                candidate=sum(pair.candidate for pair in pairs) / len(pairs),
                unit=voice,
            )
            for voice, pairs in self._found
        )


def _is_split(release: Release, version: Id, arm: Arm, share: float) -> bool:
    expected = release.candidate if arm is Arm.CANARY else release.champion
    return 0 < share < 1 and version == expected


def _is_watched(release: Release, version: Id, epoch: int) -> bool:
    watch = release.standing.watch
    return watch is not None and version == release.candidate and epoch >= watch.epoch
