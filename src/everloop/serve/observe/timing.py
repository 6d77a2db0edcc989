"""Where the time of one request went, for who asks: stages, and their end times.

A caller sends ``x-everloop-timing: 1`` and is told in ``Server-Timing``
(https://www.w3.org/TR/server-timing/); a sampled trace gets the same stages as spans. Nobody else
pays more than a look at a header.
"""

from __future__ import annotations

from time import perf_counter_ns

HEADER = b"x-everloop-timing"


class Marks:
    """The stages of one request, in their order."""

    __slots__ = ("begin_ns", "stages")

    def __init__(self, begin_ns: int) -> None:
        self.begin_ns = begin_ns
        self.stages: list[tuple[str, int]] = []

    def end(self, stage: str) -> None:
        """Note that a stage has ended now."""
        self.stages.append((stage, perf_counter_ns()))

    def header(self) -> bytes:
        """Return the stages in milliseconds as the value of ``Server-Timing``."""
        parts, before = [], self.begin_ns
        for stage, at in self.stages:
            parts.append(f"{stage};dur={(at - before) / 1e6:.3f}")
            before = at
        parts.append(f"total;dur={(before - self.begin_ns) / 1e6:.3f}")
        return ", ".join(parts).encode()


class Current:
    """The request that this process is answering at this moment, if its time is wanted.

    The event loop answers one request at a time between two waits, so one place is enough; whoever
    waits takes the marks along.
    """

    __slots__ = ("marks",)

    def __init__(self) -> None:
        self.marks: Marks | None = None


current = Current()
