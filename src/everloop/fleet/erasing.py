"""Erases what devices sent of their answers after its time; counts and digests stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct, structs

from everloop.core.clock import Instant
from everloop.core.ports import Compare, Condition, where
from everloop.fleet.lookup import get_fleet
from everloop.fleet.model import DeviceBatch
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query, verb

BATCHES_AT_ONCE = 200


class EraseDeviceRows(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask to erase the rows that a fleet's devices sent.

    Attributes:
        before: Batches that were received before this.
    """

    fleet: Annotated[str, Meta(min_length=1, max_length=100)]
    before: Instant


class CountDeviceRows(EraseDeviceRows, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask whether there is something to erase."""


class ErasedDeviceRows(Struct, frozen=True, kw_only=True):
    """How many batches were erased, or would be erased next.

    Attributes:
        has_more: Whether to ask again: only so many batches are erased at once.
    """

    batches: int
    has_more: bool


def _old(view: View, ask: EraseDeviceRows) -> Sequence[DeviceBatch]:
    return view.select(
        DeviceBatch,
        *where(fleet=get_fleet(view, ask.fleet).id),
        Condition("received_at", Compare.LT, ask.before),
        Condition("rows", Compare.NE, None),
        order="received_at",
        limit=BATCHES_AT_ONCE,
    )


@query("fleet.erasable", permission="fleet:read")
def count_device_rows(ask: CountDeviceRows, view: View) -> ErasedDeviceRows:
    """Count the batches that are old enough to be erased, up to what is erased at once."""
    found = len(_old(view, ask))
    return ErasedDeviceRows(batches=found, has_more=found == BATCHES_AT_ONCE)


@verb("fleet.erase", permission="fleet:admin")
def erase_device_rows(ask: EraseDeviceRows, work: Work) -> ErasedDeviceRows:
    """Erase inputs and answers that devices sent before a time, for good.

    Counts, merged profiles and the digest of each batch stay. The bytes themselves go with the
    next `everloop gc`.

    Raises:
        NotFound: ``fleet.not_found``.
    """
    batches = _old(work, ask)
    for batch in batches:
        work.replace(structs.replace(batch, rows=None))
        work.touch(f"device_batch:{batch.id}")
    if batches:
        work.touch(f"fleet:{batches[0].fleet}")
    return ErasedDeviceRows(batches=len(batches), has_more=len(batches) == BATCHES_AT_ONCE)
