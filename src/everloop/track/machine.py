"""What the machine does while a run is under way: processor, memory, disk, network, cards.

Read from the files of Linux, where a reading costs some hundred microseconds and no library;
elsewhere from psutil if that is installed, else not at all.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from everloop.track import nvml

_PROC: Final = Path("/proc")
_MEGA: Final = 1e6
_KIBI: Final = 1_024


class Machine:
    """Reads what the machine does; used by one thread.

    The names are those under which MLflow logs the same, so that charts find both. Rates need two
    readings, so the first one has none of them.
    """

    def __init__(self, disk: Path) -> None:
        """Look at the machine; ``disk`` is any path on the disk to watch."""
        self._disk = disk
        self._ticks: tuple[int, int] | None = None

    def read(self) -> dict[str, float]:
        """Return the present values by name."""
        found: dict[str, float] = {}
        if sys.platform == "linux":
            found |= self._read_processor() | _read_memory() | _read_network() | _read_process()
        elif find_spec("psutil") is not None:
            found |= _read_with_psutil()
        return found | self._read_disk() | _read_cards()

    def _read_processor(self) -> dict[str, float]:
        line = _text("stat").partition("\n")[0].split()[1:9]
        if len(line) < 5:
            return {}
        ticks = [int(number) for number in line]
        total, idle = sum(ticks), ticks[3] + ticks[4]
        before, self._ticks = self._ticks, (total, idle)
        if before is None or total <= before[0]:
            return {}
        share = 1 - (idle - before[1]) / (total - before[0])
        return {"cpu_utilization_percentage": 100 * min(max(share, 0.0), 1.0)}

    def _read_disk(self) -> dict[str, float]:
        try:
            usage = shutil.disk_usage(self._disk)
        except OSError:
            return {}
        return {
            "disk_usage_percentage": 100 * usage.used / max(usage.total, 1),
            "disk_usage_megabytes": usage.used / _MEGA,
            "disk_available_megabytes": usage.free / _MEGA,
        }


def _read_memory() -> dict[str, float]:
    sizes = {}
    for line in _text("meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name in {"MemTotal", "MemAvailable"}:
            sizes[name] = int(rest.split()[0]) * _KIBI
    if len(sizes) < 2:
        return {}
    used = sizes["MemTotal"] - sizes["MemAvailable"]
    return {
        "system_memory_usage_megabytes": used / _MEGA,
        "system_memory_usage_percentage": 100 * used / sizes["MemTotal"],
    }


def _read_process() -> dict[str, float]:
    words = _text("self/statm").split()
    if len(words) < 2:
        return {}
    return {"process_memory_megabytes": int(words[1]) * os.sysconf("SC_PAGE_SIZE") / _MEGA}


def _read_network() -> dict[str, float]:
    received = sent = 0
    for line in _text("net/dev").splitlines()[2:]:
        name, _, rest = line.partition(":")
        words = rest.split()
        if name.strip() != "lo" and len(words) >= 9:
            received, sent = received + int(words[0]), sent + int(words[8])
    return {
        "network_receive_megabytes": received / _MEGA,
        "network_transmit_megabytes": sent / _MEGA,
    }


def _read_cards() -> dict[str, float]:
    found: dict[str, float] = {}
    for place, card in enumerate(nvml.read_gpus()):
        values = {
            "utilization_percentage": card.busy_percent,
            "memory_usage_megabytes": None,
            "memory_usage_percentage": None,
            "power_usage_watts": card.power_w,
        }
        if card.memory_bytes is not None and card.memory_total_bytes:
            values["memory_usage_megabytes"] = card.memory_bytes / _MEGA
            values["memory_usage_percentage"] = 100 * card.memory_bytes / card.memory_total_bytes
        found |= {
            f"gpu_{place}_{name}": value for name, value in values.items() if value is not None
        }
    return found


def _read_with_psutil() -> dict[str, float]:
    import psutil

    memory, network = psutil.virtual_memory(), psutil.net_io_counters()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": (memory.total - memory.available) / _MEGA,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": psutil.Process().memory_info().rss / _MEGA,
        "network_receive_megabytes": network.bytes_recv / _MEGA,
        "network_transmit_megabytes": network.bytes_sent / _MEGA,
    }


def _text(name: str) -> str:
    try:
        return (_PROC / name).read_text()
    except OSError:
        return ""
