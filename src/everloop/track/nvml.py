"""Graphics cards of NVIDIA, asked through the driver's own library, NVML.

The library comes with the driver; where it is not, there are no cards. Functions and structures:
https://docs.nvidia.com/deploy/nvml-api/.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, Final, NamedTuple

LIBRARY: Final = "libnvidia-ml.so.1"
_NAME_BYTES: Final = 96


class GpuReading(NamedTuple):
    """What one card does now; None for what it does not tell.

    Attributes:
        busy_percent: Share of the last moment in which it computed.
        memory_bytes: Memory in use.
        memory_total_bytes: Memory it has.
        power_w: Power it draws.
    """

    busy_percent: float | None
    memory_bytes: int | None
    memory_total_bytes: int | None
    power_w: float | None


class _Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class _Utilisation(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


def list_gpus() -> tuple[str, ...]:
    """Return name and memory of each card, such as ``NVIDIA H200 (141 GB)``."""
    library = _open()
    if library is None:
        return ()
    names = []
    for card in _cards(library):
        name = ctypes.create_string_buffer(_NAME_BYTES)
        memory = _memory(library, card)
        if library.nvmlDeviceGetName(card, name, _NAME_BYTES) == 0:
            size = f" ({memory.total / 1e9:.0f} GB)" if memory is not None else ""
            names.append(name.value.decode(errors="replace") + size)
    return tuple(names)


def read_gpus() -> tuple[GpuReading, ...]:
    """Return what each card does now, in the driver's order."""
    library = _open()
    return () if library is None else tuple(_read(library, card) for card in _cards(library))


def _read(library: Any, card: ctypes.c_void_p) -> GpuReading:
    rates, milliwatts = _Utilisation(), ctypes.c_uint()
    has_rates = library.nvmlDeviceGetUtilizationRates(card, ctypes.byref(rates)) == 0
    has_power = library.nvmlDeviceGetPowerUsage(card, ctypes.byref(milliwatts)) == 0
    memory = _memory(library, card)
    return GpuReading(
        busy_percent=float(rates.gpu) if has_rates else None,
        memory_bytes=int(memory.used) if memory is not None else None,
        memory_total_bytes=int(memory.total) if memory is not None else None,
        power_w=milliwatts.value / 1_000 if has_power else None,
    )


def _memory(library: Any, card: ctypes.c_void_p) -> _Memory | None:
    memory = _Memory()
    failed = library.nvmlDeviceGetMemoryInfo(card, ctypes.byref(memory))
    return None if failed else memory


def _cards(library: Any) -> list[ctypes.c_void_p]:
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    cards = []
    for place in range(count.value):
        card = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByIndex_v2(place, ctypes.byref(card)) == 0:
            cards.append(card)
    return cards


@lru_cache(maxsize=1)
def _open() -> Any:
    """Return the driver's library, ready for use, or None without one."""
    try:
        library = ctypes.CDLL(LIBRARY)
        return library if library.nvmlInit_v2() == 0 else None
    except (OSError, AttributeError):
        return None
