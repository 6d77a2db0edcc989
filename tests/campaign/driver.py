"""The demo with a memory: writes down each answer and each label that was acknowledged to it.

    python driver.py FOLDER ACKNOWLEDGED DAYS

A line is written by one system call after the answer came, so it survives a kill of this process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "examples" / "bike_demand"
sys.path.insert(0, str(DEMO))

import demo  # noqa: E402 -- the example's own modules
import stages  # noqa: E402
from replay import Replay  # noqa: E402


class RecordedReplay(Replay):
    """A replay that notes what it was told, after it was told."""

    notes: int

    def _ask(self, inputs: dict[str, object], at: datetime) -> tuple[str, float]:
        key, output = super()._ask(inputs, at)
        self._note({"prediction": key, "output": output})
        return key, output

    def _send(self, late: list[tuple[str, float]]) -> None:
        super()._send(late)
        self._note({"labels": late})

    def _note(self, told: dict[str, object]) -> None:
        os.write(self.notes, json.dumps(told).encode() + b"\n")


def main() -> int:
    """Run the demo on its folder, or go on with it."""
    faulthandler.register(signal.SIGUSR1)  # says where it stands, for whoever wonders
    folder, notes, days = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    RecordedReplay.notes = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    stages.Replay = RecordedReplay  # type: ignore[attr-defined]
    demo._prepare(folder, fresh=False)
    with ExitStack() as stack:
        story = stages.Story(folder, seed=0, days=days, stack=stack)
        story.first_version()
        story.replay()
        story.try_bad_models()
        story.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
