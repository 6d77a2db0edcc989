"""The verb by which a device reports: what it runs, what it refused, and batches of answers.

A batch counts once: repeated it changes nothing, and another one under the same number is refused.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, structs

from everloop.core.canonical import canonical_json
from everloop.core.clock import Instant
from everloop.core.digest import Digest, value_digest
from everloop.core.errors import Conflict, InvalidInput
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.data.profile import Reference, merge
from everloop.data.sketch import merge_moments
from everloop.fleet.evidence import find_bad, find_trial, marked, take_in_report
from everloop.fleet.lookup import calling_device
from everloop.fleet.model import (
    Device,
    DeviceBatch,
    Fleet,
    FleetSketch,
    Refusal,
)
from everloop.fleet.telemetry import Count, Micros, ToldSketch, is_finite, to_moments, to_profile
from everloop.kernel.unit_of_work import Desk, View, Work
from everloop.kernel.verbs import Payload, verb
from everloop.registry.model import ModelVersion

Series = Annotated[str, Meta(min_length=1, max_length=40)]
MOST_ROWS = 10_000
MOST_LATENCY_US = 1 << 62
Value = bool | int | float | Annotated[str, Meta(max_length=1_000)] | None
Row = tuple[
    Annotated[str, Meta(max_length=40)],
    Micros,
    Annotated[str, Meta(max_length=40)],
    Literal["ok", "invalid", "error"],
    float | tuple[float | None, ...] | None,
    Count,
    Annotated[tuple[Value, ...], Meta(max_length=10_000)],
]


class Batch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch of a device's log.

    Attributes:
        series: Which log it is of.
        number: Its place in it, from 1.
        first: The log's segment with which the next batch begins.
        dropped: Rows whose bodies had no room.
        torn: Lines that were destroyed.
        sketches: Counts by version id.
        rows: Rows with bodies: id, time in microseconds, version id, status, answer, latency in
            microseconds, and the inputs in the signature's order.
    """

    series: Series
    number: Annotated[int, Meta(ge=1, le=1 << 53)]
    first: Count
    dropped: Count
    torn: Count
    sketches: Annotated[dict[Annotated[str, Meta(max_length=40)], ToldSketch], Meta(max_length=100)]
    rows: Annotated[tuple[Row, ...], Meta(max_length=MOST_ROWS)]


class ReportDevice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a device tells of itself.

    Attributes:
        sent_at_us: Its own clock, in microseconds since 1970.
        running: SHA-256 of the bundle that it runs.
        epoch: The newest epoch that it has seen.
        refused: Bundles that it tried and left.
        batch: Answers since the batch before; None for none.
    """

    sent_at_us: Micros
    running: Annotated[Digest, Meta(max_length=80)] | None = None
    epoch: Count = 0
    refused: Annotated[tuple[Refusal, ...], Meta(max_length=20)] = ()
    batch: Batch | None = None


class Reported(Struct, frozen=True, kw_only=True):
    """What the control plane took in.

    Attributes:
        is_new: Whether the batch was new; False for a repetition, and without a batch.
    """

    is_new: bool
    last_batch: int


class _Ready(Struct, frozen=True, kw_only=True):
    digest: Digest | None
    rows: Digest | None
    references: dict[str, Reference | None]


def _store_rows(ask: ReportDevice, desk: Desk) -> _Ready:
    with desk.read() as view:
        calling_device(view)
        batch = ask.batch
        versions = {} if batch is None else {key: _version(view, key) for key in batch.sketches}
    blobs = desk.services.blobs
    references = {
        key: None
        if version.reference is None
        else msgspec.json.decode(blobs.get(version.reference), type=Reference)
        for key, version in versions.items()
    }
    if batch is None:
        return _Ready(digest=None, rows=None, references={})
    return _Ready(
        digest=value_digest("device_batch", batch),
        rows=blobs.put(canonical_json(batch.rows)) if batch.rows else None,
        references=references,
    )


@verb(
    "device.report",
    permission="device:predict",
    prepare=_store_rows,
    payload=Payload.DIGEST,
)
def report_device(ask: ReportDevice, work: Work, ready: _Ready) -> Reported:
    """Take in what a device tells; and roll a release back, or on, where that suffices for it.

    Raises:
        Denied: ``device.unknown``.
        InvalidInput: ``telemetry.invalid``, or ``telemetry.version_unknown``.
        Conflict: ``telemetry.replayed`` for another batch under a number that was used.
    """
    device = calling_device(work)
    fleet = work.get(Fleet, device.fleet)
    work.touch(f"device:{device.id}", f"fleet:{fleet.id}")
    is_new = ask.batch is not None and _is_new(work, device, ask.batch, ready)
    sketches = ask.batch.sketches if is_new and ask.batch is not None else {}
    trial = find_trial(work, fleet)
    bad = find_bad(work, trial, device, sketches) if trial else []
    device = _updated(device, ask, work.now, is_new=is_new)
    device = work.replace(marked(device, trial, bad) if trial else device)
    if is_new and ask.batch is not None:
        _keep(work, device, ask.batch, ready)
    if trial is not None:
        take_in_report(work, trial, device, bad, sketches)
    return Reported(is_new=is_new, last_batch=device.last_batch)


def _is_new(work: Work, device: Device, batch: Batch, ready: _Ready) -> bool:
    """Tell whether a batch is new; refuse one that says otherwise than before."""
    place = where(device=device.id, series=batch.series, number=batch.number)
    known = work.first(DeviceBatch, *place)
    if known is None:
        return True
    if known.digest != ready.digest:
        raise Conflict(
            "telemetry.replayed",
            f"Batch {batch.number} of device {device.name!r} was another one before.",
            hint="Two devices may use one token: revoke it, and enrol the device anew.",
            context={"device": device.id, "number": batch.number},
        )
    return False


def _updated(device: Device, ask: ReportDevice, now: Instant, *, is_new: bool) -> Device:
    batch = ask.batch if is_new else None
    told = datetime.fromtimestamp(ask.sent_at_us / 1e6, UTC)
    fresh = structs.replace(
        device,
        running=ask.running,
        refused=ask.refused,
        seen_epoch=max(device.seen_epoch, ask.epoch),
        seen_at=now,
        skew_s=(told - now).total_seconds(),
    )
    if batch is None:
        return fresh
    problem = device.problem
    if device.series and batch.series != device.series:
        problem = "Its log began anew, or its token is used by two."
    elif batch.number > device.last_batch + 1 and batch.series == device.series:
        problem = f"Batches after {device.last_batch} never came."
    return structs.replace(
        fresh,
        series=batch.series,
        last_batch=batch.number,
        answers=device.answers + sum(sketch.answers for sketch in batch.sketches.values()),
        problem=problem,
    )


def _keep(work: Work, device: Device, batch: Batch, ready: _Ready) -> None:
    sketches = batch.sketches.values()
    assert ready.digest is not None
    work.insert(
        DeviceBatch(
            id=work.new_id(),
            project=work.project,
            fleet=device.fleet,
            device=device.id,
            series=batch.series,
            number=batch.number,
            digest=ready.digest,
            rows=ready.rows,
            answers=sum(sketch.answers for sketch in sketches),
            errors=sum(sketch.errors for sketch in sketches),
            invalid=sum(sketch.invalid for sketch in sketches),
            dropped=batch.dropped,
            torn=batch.torn,
            received_at=work.now,
        )
    )
    for key, told in batch.sketches.items():
        version = _version(work, key)
        _merge(work, device.fleet, version, told, ready.references.get(key))


def _merge(
    work: Work, fleet: Id, version: ModelVersion, told: ToldSketch, reference: Reference | None
) -> None:
    profile, output = to_profile(told, reference), to_moments(told.output)
    if told.errors + told.invalid > told.answers:
        raise InvalidInput(
            "telemetry.invalid",
            "The batch holds more faults than answers.",
            hint="Nothing of it was counted. Look at the device.",
        )
    known = work.first(FleetSketch, *where(fleet=fleet, version=version.id))
    if known is None:
        work.insert(
            FleetSketch(
                id=work.new_id(),
                project=work.project,
                fleet=fleet,
                version=version.id,
                answers=told.answers,
                errors=told.errors,
                invalid=told.invalid,
                latency_us=told.latency_us,
                profile=profile,
                output=output,
                reference=version.reference,
                updated_at=work.now,
            )
        )
        return
    merged, outputs = merge(known.profile, profile), merge_moments(known.output, output)
    if not is_finite(merged, outputs):  # one mad device must not stop the others from telling
        merged, outputs = known.profile, known.output
    work.replace(
        structs.replace(
            known,
            answers=known.answers + told.answers,
            errors=known.errors + told.errors,
            invalid=known.invalid + told.invalid,
            latency_us=min(known.latency_us + told.latency_us, MOST_LATENCY_US),
            profile=merged,
            output=outputs,
            updated_at=work.now,
        )
    )


def _version(view: View, key: str) -> ModelVersion:
    found = view.find(ModelVersion, Id(key))
    if found is None:
        raise InvalidInput(
            "telemetry.version_unknown",
            f"There is no model version {key[:60]!r} in this project.",
            hint="The device's log is of another project; look at it.",
        )
    return found
