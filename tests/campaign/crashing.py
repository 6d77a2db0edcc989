"""Kills processes of a running demo at random moments and starts it again on its folder."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

DRIVER = Path(__file__).with_name("driver.py")
GONE = ("the control plane is gone", "the server did not start")
LONGEST_LIFE_S = 5.0
ANY_MOMENT = 0.3
LOOK_S = 0.03
END_S = 90.0
LONGEST_END_S = 900.0
WEIGHTS = {"driver": 1, "control": 1, "serving": 2, "training": 6}


@dataclass
class Crashes:
    """One demo on one folder, and what was done to it."""

    folder: Path
    rng: random.Random
    days: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    is_orphaned: bool = False
    _driver: subprocess.Popen[bytes] | None = None

    @property
    def acknowledged(self) -> Path:
        return self.folder.with_suffix(".acknowledged")

    @property
    def output(self) -> Path:
        return self.folder.with_suffix(".output")

    def start(self) -> None:
        """Start the demo, or start it again."""
        with self.output.open("ab") as output:
            words = (str(self.folder), str(self.acknowledged), str(self.days))
            self._driver = subprocess.Popen(
                [sys.executable, str(DRIVER), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def live_on(self) -> bool:
        """Let it live for a moment; return False when it has come to its end.

        Most moments are counted from the first answer after a start, since a start takes longer
        than much else. Trainings are few and short, so that many of them are met on purpose.
        """
        size = self._noted()
        is_any = self.rng.random() < ANY_MOMENT
        left_s = self.rng.uniform(0.0, LONGEST_LIFE_S)
        is_met = False
        while left_s > 0:
            if self.has_ended():
                return False
            if not is_met and self.rng.random() < 0.6 and self.processes()["training"]:
                is_met = is_any = True
                left_s = self.rng.uniform(0.0, 1.2)
            time.sleep(LOOK_S)
            if is_any or self._noted() > size:
                left_s -= LOOK_S
        return True

    def _noted(self) -> int:
        return self.acknowledged.stat().st_size if self.acknowledged.exists() else 0

    def has_ended(self) -> bool:
        """Tell whether the demo came to its end; start it again if it lost its control plane.

        Raises:
            AssertionError: it ended in an error of another kind.
        """
        assert self._driver is not None
        code = self._driver.poll()
        if code not in {None, 0} and self.is_orphaned and self._lacks_control():
            self.start()
            return False
        assert code in {None, 0}, f"the demo ended with {code}:\n{self.told()}"
        return code == 0

    def kill(self) -> tuple[str, ...]:
        """Kill one process, or now and then all of them; return the kinds."""
        found = {kind: pids for kind, pids in self.processes().items() if pids}
        weights = [WEIGHTS[kind] for kind in found]
        chosen = self.rng.choices(list(found), weights)
        if self.rng.random() < 0.12:
            chosen = self.rng.sample(list(found), len(found))
        for kind in chosen:
            for pid in found[kind]:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            self.killed[kind] += 1
        self.is_orphaned = self.is_orphaned or "control" in chosen
        return tuple(chosen)

    def recover(self, killed: tuple[str, ...]) -> None:
        """Start the demo again when it was killed or ends for want of its control plane."""
        assert self._driver is not None
        if "driver" in killed:
            self._driver.wait(END_S)
        elif "control" in killed and not self._goes_on_without():
            assert self._lacks_control(), f"it ended otherwise:\n{self.told()}"
        if self._driver.poll() not in {None, 0}:
            time.sleep(self.rng.choice((0.0, 0.0, 0.3, 1.0)))
            self.start()

    def _goes_on_without(self) -> bool:
        """Wait until the demo, whose control plane was killed, has ended or starts another one."""
        assert self._driver is not None
        end = time.monotonic() + END_S
        while time.monotonic() < end:
            if self._driver.poll() is not None:
                return self._driver.poll() == 0
            if self.processes()["control"]:
                return True
            time.sleep(LOOK_S)
        message = f"the demo does not notice that its control plane is gone:\n{self.told()}"
        raise AssertionError(message)

    def _lacks_control(self) -> bool:
        return any(words in self.output.read_text()[-200:] for words in GONE)

    def finish(self) -> None:
        """Let the demo come to its end undisturbed."""
        assert self._driver is not None
        end = time.monotonic() + LONGEST_END_S
        while not self.has_ended():
            assert time.monotonic() < end, f"it comes to no end:\n{self.told()}"
            time.sleep(1.0)

    def end(self) -> None:
        """Kill what is left of it."""
        for pids in self.processes().values():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
        if self._driver is not None:
            self._driver.wait()

    def processes(self) -> dict[str, list[int]]:
        """Return the living processes of this demo by kind."""
        found: dict[str, list[int]] = {kind: [] for kind in WEIGHTS}
        for process, words in _commands():
            kind = self._kind(process, words)
            if kind is not None:
                found[kind].append(process.pid)
        return found

    def _kind(self, process: psutil.Process, words: list[str]) -> str | None:
        home = str(self.folder / ".everloop")
        if str(DRIVER) in words and str(self.folder) in words:
            return "driver"
        if "everloop.serve.main" in words and any(home in word for word in words):
            return "serving"
        if "everloop.app.training" in words and any(home in word for word in words):
            return "training"
        is_here = words[1:4] == ["-m", "everloop", "up"] and _folder_of(process) == self.folder
        return "control" if is_here else None

    def told(self) -> str:
        """Return the end of what the demo and its control plane wrote."""
        texts = []
        for path in (self.output, self.folder / "server.log"):
            with suppress(FileNotFoundError):
                texts.append(path.read_text(errors="replace")[-3000:])
        return "\n---\n".join(texts)


def _commands() -> Iterator[tuple[psutil.Process, list[str]]]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if words:
                yield process, words


def _folder_of(process: psutil.Process) -> Path | None:
    try:
        return Path(process.cwd())
    except psutil.Error:
        return None


@dataclass(frozen=True)
class Acknowledged:
    """What the demo was told: outputs and labels by prediction id."""

    outputs: dict[str, float]
    labels: dict[str, float]

    @classmethod
    def read(cls, path: Path) -> Acknowledged:
        outputs: dict[str, float] = {}
        labels: dict[str, float] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            told = json.loads(line)
            if "prediction" in told:
                outputs[told["prediction"]] = told["output"]
            else:
                labels |= dict(told["labels"])
        return cls(outputs, labels)
