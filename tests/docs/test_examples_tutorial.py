"""The tutorial does what it says: its commands are run in their order, with a real server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial" / "README.md"
PART = re.compile(
    r"<!-- wait: (?P<wait>.+?) -->|(?P<background><!-- background -->\n)?"
    r"```console\n(?P<commands>.*?)```",
    re.DOTALL,
)
PATIENCE_S = 90.0
POLL_S = 0.5  # a command costs more than the wait
QUIET_S = 1.0


@dataclass
class Shell:
    """Runs one command after the other, as a terminal would: folder and variables stay."""

    folder: Path
    ports: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)
    background: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def prepare(self) -> None:
        """Make `everloop` and `python` programs on the path, and the checkout a neighbour."""
        programs = self.folder / "bin"
        programs.mkdir(parents=True)
        for name, options in (("everloop", "-m everloop "), ("python", "")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options}"$@"\n')
            program.chmod(0o755)
        place = self.folder / "everloop" / "docs" / "tutorial"
        place.mkdir(parents=True)
        shutil.copytree(
            PAGE.parent / "code", place / "code", ignore=shutil.ignore_patterns("__pycache__")
        )
        for file in (place / "code").iterdir():
            file.write_text(self._own(file.read_text()))
        (self.folder / "where").write_text(str(self.folder))
        (self.folder / "variables").write_text("")

    def run(self, command: str) -> str:
        """Run a command; it must succeed."""
        done = self._call(command)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        self.said[command] = done.stdout
        return done.stdout

    def wait(self, command: str) -> None:
        """Repeat a command until it succeeds."""
        end = time.monotonic() + PATIENCE_S
        while self._call(command).returncode != 0:
            assert time.monotonic() < end, f"never came true: {command}"
            time.sleep(POLL_S)

    def start(self, command: str) -> None:
        """Run a command in another terminal."""
        program = self._call("which everloop").stdout.strip()
        words = [program, *command.split()[1:]]
        with (self.folder / "background.log").open("wb") as log:
            self.background.append(
                subprocess.Popen(words, cwd=self._where(), env=self._clean(), stdout=log)
            )

    def stop(self) -> None:
        """End what runs in other terminals, as Ctrl-C does."""
        for process in self.background:
            process.send_signal(signal.SIGINT)
        for process in self.background:
            process.wait(timeout=30)

    def _call(self, command: str) -> subprocess.CompletedProcess[str]:
        script = (
            f'. {self.folder}/variables; cd "$(cat {self.folder}/where)" || exit 99\n'
            f"{self._own(command)}\nstatus=$?\n"
            f"pwd > {self.folder}/where; export -p > {self.folder}/variables; exit $status"
        )
        return subprocess.run(
            ["bash", "-c", script],
            env=self._clean(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def _own(self, text: str) -> str:
        """Replace the ports of the page by free ones, since tests run side by side."""
        for written, used in self.ports.items():
            text = text.replace(written, used)
        return text

    def _where(self) -> str:
        return (self.folder / "where").read_text().strip()

    def _clean(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("EVERLOOP")}
        return kept | {"PATH": f"{self.folder}/bin:{kept['PATH']}"}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def commands_of(block: str) -> list[str]:
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The shell after the whole tutorial, with the server still running."""
    shell = Shell(tmp_path_factory.mktemp("tutorial"), {"7300": free_port(), "7310": free_port()})
    shell.prepare()
    try:
        for part in PART.finditer(PAGE.read_text(encoding="utf-8")):
            if part["wait"]:
                shell.wait(part["wait"])
            elif part["background"]:
                shell.start(commands_of(part["commands"])[0])
            else:
                for command in commands_of(part["commands"]):
                    shell.run(command)
        yield shell
    finally:
        shell.stop()


def test_the_first_version_passes_its_gate(walked: Shell) -> None:
    assert ": passed" in walked.said["everloop gate evaluate coffee@1.0.0"]


def test_a_changed_world_ends_with_a_promoted_version(walked: Shell) -> None:
    assert "promoted" in walked.said["everloop loop list"]
    assert "1.1.0" in walked.said["everloop models history coffee"]


def test_the_error_comes_back_down(walked: Shell) -> None:
    def error_of(command: str) -> float:
        found = re.findall(r"mean error +([0-9.]+)", walked.said[command])
        return sum(map(float, found)) / len(found)

    bad, mended = error_of("python replay.py 2 8 3.0"), error_of("python replay.py 18 2 3.0")

    assert mended < bad / 2


def test_the_walk_back_from_a_prediction_verifies(walked: Shell) -> None:
    told = walked.said["everloop lineage prediction:$ID"]

    assert "answered_by" in told
    assert "caused_by" in told
    assert "BROKEN" not in told.upper()


def test_the_ledger_verifies_with_and_without_everloop(walked: Shell) -> None:
    assert "everything verifies" in walked.said["everloop audit verify"]
    assert "TAMPER" not in walked.said["python -I ledger/verify.py ledger"]


def test_a_loop_with_nothing_to_do_writes_nothing(walked: Shell) -> None:
    walked.wait("everloop loop status coffee --json | grep -q '\"is_idle\": true'")
    before = walked.run("everloop audit list --whole --limit 1 --json")

    time.sleep(QUIET_S)  # the loop looks at least twice a second

    assert before == walked.run("everloop audit list --whole --limit 1 --json")
