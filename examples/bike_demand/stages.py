"""The stages of the demo, each through the same verbs that the CLI and the pages use."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from features import INPUTS, TARGET
from hours import TIME, TRAP, by_day, load, split_first, without_trap
from processes import control_plane, serving_address
from replay import Places, Progress, Replay, replace_file, wait_for_token
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from tables import print_report

from everloop import Client, EverloopError, PredictClient, commit, connect, register
from everloop.app.sdk import use
from everloop.app.training import train
from everloop.core.ids import Id
from everloop.core.wire import Applied
from everloop.data.model import DatasetVersion
from everloop.gate.verbs import EvaluateGate, WaiveGate
from everloop.govern.audit import EntryList
from everloop.kernel.tokens import CreateToken, NewToken
from everloop.loop.ports import TrainingJob
from everloop.loop.queries import ListRuns, RunList
from everloop.monitor.queries import MonitorView
from everloop.registry.evidence import GateReport, Waiver
from everloop.registry.formats import open_version
from everloop.registry.model import ModelVersion
from everloop.release.model import State
from everloop.release.queries import DeploymentView, ReleaseView, ShowDeployment, ShowRelease
from everloop.release.verbs import CreateDeployment, StartRelease

A = TypeVar("A")
Figures = dict[str, object]
MODEL = "bike"
HOLDOUT_EVERY = 5
BAD_MODEL_DAYS = 21
"""Days kept at the end of the replay for the two bad models."""


class _Walk(msgspec.Struct):
    """What the demo looks at of a lineage: everything that does not verify."""

    broken: tuple[str, ...]


class Story:
    """The demo, stage by stage. Every stage may be repeated after a crash."""

    def __init__(self, folder: Path, *, seed: int, days: int, stack: ExitStack) -> None:
        self.folder = folder
        self.seed = seed
        self.console = Console()
        self.stack = stack
        self.figures: dict[str, object] = {"seed": seed}
        if not (folder / ".everloop").exists():
            self._cli("init")
        self._set_seed()
        self.near: Client = stack.enter_context(connect(folder))
        use(self.near)
        self.plane = stack.enter_context(control_plane(folder))
        self.progress = Progress.load(folder / "demo.json")
        table = load(folder / "data" / "bike_sharing_hour.csv.gz")
        self.training, self.holdout, later = split_first(table, every=HOLDOUT_EVERY)
        whole = list(by_day(without_trap(later)))
        self.days = whole[:days] if days else whole

    def first_version(self) -> None:
        """Commit the first half of 2011, train, gate and release the first version."""
        training, holdout = self._commit("bike", without_trap(self.training), self.holdout)
        self._say(
            "data", f"committed {training.rows} hours to train on, {holdout.rows} to judge by"
        )
        self._try_leak()
        version = self._train(training, holdout)
        report = self._gate(version)
        if not report.passed:
            raise SystemExit(f"error: the first version did not pass: {_failures(report)}")
        self._say("gate", f"bike@{version.version} passed: {_sentence(report, 'beats_champion')}")
        self._deploy(version)
        self.frozen = self._answers_of(version)

    def replay(self) -> None:
        """Replay the hours, day by day, all but the last three weeks."""
        self._replay_until(len(self.days) - BAD_MODEL_DAYS, "replaying")

    def try_bad_models(self) -> None:
        """Try to release a model of shuffled labels, then force a broken one past the gate."""
        self._try_shuffled()
        self._force_broken()

    def finish(self) -> None:
        """Replay the remaining days; verify the ledger and some lineage."""
        self._replay_until(len(self.days), "replaying on")
        verified = self._cli_json(Figures, "audit", "verify")
        self.figures["ledger"] = verified
        ids = self.progress.last_ids[:: max(1, len(self.progress.last_ids) // 5)]
        walks = [self._cli_json(_Walk, "lineage", f"prediction:{key}") for key in ids[:5]]
        self.figures["lineage_broken"] = [name for walk in walks for name in walk.broken]

    def report(self, seconds: float) -> None:
        """Print what happened."""
        progress = self.progress
        runs = self.near.perform("loop.list", ListRuns(limit=1000), RunList).items
        self.figures |= {
            "seconds": round(seconds, 1),
            "hours": progress.hours,
            "loop_mae": progress.loop_error / progress.hours,
            "frozen_mae": progress.frozen_error / progress.hours,
            "retrains": len(runs),
            **progress.marks,
        }
        progress.is_done = True
        progress.save()
        self.figures["reduction"] = 1 - progress.loop_error / progress.frozen_error
        print_report(self.console, self.figures, runs)
        link = self._cli_json(Figures, "token", "login")
        self.console.print(f"\nPages: [bold]{link['url']}[/bold]")
        self.console.print(f"Later: cd {self.folder.name} && everloop up", style="dim")

    def wait_for_reader(self) -> None:
        """Keep the pages open until somebody presses Enter."""
        self.console.print("Press Enter to stop the server.", style="dim")
        try:
            sys.stdin.readline()
        except KeyboardInterrupt:
            return

    def _commit(
        self, name: str, training: pa.Table, holdout: pa.Table
    ) -> tuple[DatasetVersion, DatasetVersion]:
        message = "UCI Bike Sharing, Fanaee-T and Gama 2013, CC BY 4.0"
        return (
            commit(name, training, message=message),
            commit(f"{name}-holdout", without_trap(holdout), message=message),
        )

    def _try_leak(self) -> None:
        """Leave the two columns in that add up to the target: the gate must notice."""
        if "leak" in self.progress.marks:
            return
        training = commit("bike-with-trap", self.training)
        holdout = commit("bike-with-trap-holdout", self.holdout)
        model = _fit(self.training, [*INPUTS, *TRAP], TARGET, self.seed)
        version = register(
            "bike-with-trap", model, training=training.id, holdout=holdout.id, target=TARGET
        )
        report = self._gate(version)
        self._mark("leak", report, f"a model that is given {' and '.join(TRAP)}")

    def _train(self, training: DatasetVersion, holdout: DatasetVersion) -> ModelVersion:
        job = TrainingJob(
            key=f"first-{self.seed}",
            pipeline="pipeline:train",
            model=MODEL,
            target=TARGET,
            task="regression",
            training=training.id,
            holdout=holdout.id,
            time_column=TIME,
            seed=self.seed,
        )
        version = train(self.near, job)
        self._say("train", f"run {version.run} gave bike@{version.version}")
        return version

    def _gate(self, version: ModelVersion) -> GateReport:
        return self.near.perform("gate.evaluate", EvaluateGate(version=version.id), GateReport)

    def _deploy(self, version: ModelVersion) -> None:
        if self._deployment() is None:
            self.near.perform(
                "deployment.create", CreateDeployment(name=MODEL, model=MODEL), DeploymentView
            )
        found = self._deployment()
        assert found is not None
        if found.deployment.champion is None:
            ask = StartRelease(deployment=MODEL, version=version.id, at=self.days[0][0])
            self.near.perform("release.start", ask, ReleaseView)
        self._say("release", f"bike@{version.version} answers in a process of its own")

    def _deployment(self) -> DeploymentView | None:
        try:
            return self.near.perform(
                "deployment.show", ShowDeployment(deployment=MODEL), DeploymentView
            )
        except LookupError:
            return None

    def _answers_of(self, version: ModelVersion) -> list[list[float]]:
        """Return what the first version would have answered to every hour, had it stayed."""
        assert self.near.kernel is not None
        predictor = open_version(self.near.blobs, version, self.near.kernel.services.policy)
        answers = []
        for _, rows in self.days:
            matrix = np.array([[float(str(row[name])) for name in INPUTS] for row in rows])
            answers.append([float(value) for value in predictor.predict(matrix)])
        return answers

    def _replay_until(self, end: int, what: str) -> None:
        if self.progress.day >= end:
            return
        replay = self._replay
        with self._bar() as bar:
            task = bar.add_task(what, total=len(self.days), completed=self.progress.day, note="")
            while self.progress.day < end:
                day = self.progress.day
                replay.live_day(self.days[day][1], self.frozen[day])
                bar.update(task, completed=self.progress.day, note=self._note(day))

    @cached_property
    def _replay(self) -> Replay:
        found = self._deployment()
        assert found is not None
        ask = CreateToken(name="replay", scope=("prediction:predict", "feedback:write"), days=1)
        token = self._instance_token(ask)
        near, url = self.near, self.plane.url
        far = self.stack.enter_context(connect(url, project=near.project, token=token))
        predictor = PredictClient(serving_address(self.plane, MODEL), token)
        wait_for_token(predictor, self.plane.require)
        places = Places(near, far, predictor, self.plane.require)
        return Replay(places, found.deployment.id, self.progress)

    def _instance_token(self, ask: CreateToken) -> str:
        return self.near.perform("token.create", ask, NewToken).secret

    def _note(self, day: int) -> str:
        progress = self.progress
        at: datetime = self.days[day][0]
        change = 1 - progress.loop_error / max(progress.frozen_error, 1e-9)
        return f"{at:%Y-%m-%d}  error {change:+.0%} below the frozen model's"

    def _try_shuffled(self) -> None:
        if "shuffled" in self.progress.marks:
            return
        rows = without_trap(self.training)
        order = np.random.default_rng(self.seed).permutation(rows.num_rows)
        truth = rows.column(TARGET).to_numpy()[order]
        position = rows.column_names.index(TARGET)
        version = self._bad_version(
            "bike-shuffled", rows.set_column(position, TARGET, pa.array(truth))
        )
        report = self._gate(version)
        self._mark("shuffled", report, "a model of shuffled labels")
        try:
            ask = StartRelease(deployment=MODEL, version=version.id)
            self.near.perform("release.start", ask, ReleaseView)
        except EverloopError as refusal:
            self._say("release", f"refused: {refusal.message[:110]}")
        else:
            raise SystemExit("error: a refused model was released")

    def _force_broken(self) -> None:
        """Release a model whose clock was twelve hours off, past the gate, with a waiver."""
        if "broken" in self.progress.marks:
            return
        rows = without_trap(self.training)
        position = rows.column_names.index("hr")
        wrong = pa.array((rows.column("hr").to_numpy() + 12) % 24)
        version = self._bad_version("bike-broken", rows.set_column(position, "hr", wrong))
        report = self._gate(version)
        why = "Demo: the release must notice what the gate was told to let pass."
        if not report.passed:
            self.near.perform("gate.waive", WaiveGate(version=version.id, why=why), Waiver)
        if "canary" not in self.progress.marks:
            release = self._start_canary(version)
            self.progress.marks["canary"] = {"release": release, "day": self.progress.day}
            self.progress.save()
        begun = self.progress.marks["canary"]
        assert isinstance(begun, dict)
        release, day = Id(begun["release"]), int(begun["day"])
        self._say("waiver", "the broken model is in the canary, with a recorded waiver")
        while self.progress.day < len(self.days) and self._release(release).release.live:
            self._replay_until(self.progress.day + 1, "canary of a broken model")
        ended = self._release(release).release
        if ended.state is not State.ROLLED_BACK:
            raise SystemExit(f"error: the broken model is {ended.state.value}")
        self.progress.marks["broken"] = {
            "rolled_back_after_days": self.progress.day - day,
            "why": ended.why,
            "switch_ms": self._switch_ms(ended.id),
        }
        self.progress.save()
        self._say("rollback", ended.why)

    def _start_canary(self, version: ModelVersion) -> Id:
        found = self._deployment()
        assert found is not None
        if found.live is not None and found.live.candidate == version.id:
            return found.live.id
        self._replay_while_live()
        watch = self._cli_json(MonitorView, "monitor", "show", MODEL).watch
        assert watch is not None
        ask = StartRelease(
            deployment=MODEL,
            version=version.id,
            strategy="canary",
            cursor_segment=watch.segment_cursor,
            cursor_feedback=watch.feedback_cursor,
            at=self.days[self.progress.day][0],
        )
        return self.near.perform("release.start", ask, ReleaseView).release.id

    def _replay_while_live(self) -> None:
        """Let a release of the loop's own come to its end first."""
        while (found := self._deployment()) and found.live and self.progress.day < len(self.days):
            self._replay_until(self.progress.day + 1, "waiting for a release")

    def _release(self, release: Id) -> ReleaseView:
        return self.near.perform("release.show", ShowRelease(release=release), ReleaseView)

    def _switch_ms(self, release: Id) -> float | None:
        """Return the time from the recorded rollback until the serving process had switched."""
        words = ("audit", "list", "--resource", f"release:{release}")
        entries = self._cli_json(EntryList, *words).items
        applied_path = self.folder / ".everloop" / "serve" / MODEL / "applied.json"
        applied = msgspec.json.decode(applied_path.read_bytes(), type=Applied)
        decided = max(entry.at for entry in entries)
        return round((applied.at - decided).total_seconds() * 1000, 1)

    def _bad_version(self, name: str, rows: pa.Table) -> ModelVersion:
        training = commit(name, rows)
        holdout = commit(f"{name}-holdout", without_trap(self.holdout))
        model = _fit(rows, list(INPUTS), TARGET, self.seed)
        return register(MODEL, model, training=training.id, holdout=holdout.id, target=TARGET)

    def _mark(self, key: str, report: GateReport, what: str) -> None:
        if report.passed:
            raise SystemExit(f"error: the gate let {what} pass")
        self.progress.marks[key] = {"passed": report.passed, "why": _failures(report)}
        self.progress.save()
        self._say("gate", f"refused {what}: {_failures(report)[:160]}")

    def _say(self, stage: str, text: str) -> None:
        self.console.print(f"[bold cyan]{stage:>8}[/]  {text}", highlight=False)

    def _bar(self) -> Bar:
        return Bar(
            TextColumn("[bold cyan]{task.description:>8}[/]"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=not self.console.is_terminal,
        )

    def _set_seed(self) -> None:
        """Write the seed into the project's file, as its owner would."""
        path = self.folder / "everloop.yaml"
        lines = [
            line for line in path.read_text().splitlines() if not line.startswith("      seed:")
        ]
        place = next(i for i, line in enumerate(lines) if line.strip() == "enabled: true")
        lines.insert(place + 1, f"      seed: {self.seed}")
        replace_file(path, "\n".join(lines) + "\n")

    def _cli(self, *words: str) -> str:
        command = [sys.executable, "-m", "everloop", *words]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"everloop {' '.join(words)} failed:\n{done.stderr}")
        return done.stdout

    def _cli_json(self, kind: type[A], *words: str) -> A:
        return msgspec.json.decode(self._cli(*words, "--json"), type=kind)


def _fit(rows: pa.Table, inputs: list[str], target: str, seed: int) -> object:
    """Train outside the pipeline, as somebody in a hurry would."""
    import lightgbm

    data = lightgbm.Dataset(
        np.column_stack([rows.column(name).to_numpy() for name in inputs]),
        label=rows.column(target).to_numpy(),
        feature_name=inputs,
    )
    fixed = {"num_threads": 1, "verbosity": -1, "deterministic": True, "seed": seed}
    return lightgbm.train(fixed | {"objective": "regression"}, data, num_boost_round=100)


def _failures(report: GateReport) -> str:
    return " ".join(check.summary for check in report.checks if not check.passed)


def _sentence(report: GateReport, name: str) -> str:
    return next(check.summary for check in report.checks if check.name == name)
