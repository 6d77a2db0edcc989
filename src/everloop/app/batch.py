"""Batch scoring: plans the parts, gives them to local processes or a Ray cluster, and resumes.

Beside the answers lies the plan: the version, the inputs and how they were cut. The same command
given again goes on where it stopped; another one is refused there, so that answers never mix.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from everloop.core.errors import Conflict, InvalidInput, MissingExtra
from everloop.export.model import Subject
from everloop.serve.batch import (
    PART_ROWS,
    Part,
    Task,
    count_statuses,
    join_parts,
    plan_parts,
    score_part,
)

Place = Literal["here", "ray"]
PLAN: Final = "plan.json"
BUNDLE: Final = "bundle"
KINDS: Final = (".parquet", ".csv")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch answers, and how it is cut.

    Attributes:
        seal: SHA-256 of the sealed description of the version that answers.
        files: Path, size and time of change of each input.
        keep: Columns that stand beside the answers.
        parts: The pieces of work.
    """

    seal: str
    files: tuple[tuple[str, int, int], ...]
    keep: tuple[str, ...]
    parts: tuple[Part, ...]


class Batch:
    """Answers to the rows of some files by one sealed version.

    Args:
        subject: The version.
        sources: Parquet or CSV files, and folders of them.
        target: A file that ends in ``.parquet`` or ``.csv``, or a folder for one file a part.
        keep: Columns of the input that stand beside the answers.
        part_rows: About how many rows a part has.
        restart: Whether to throw away what another command, or this one before, left there.

    Raises:
        InvalidInput: ``batch.unreadable`` or ``batch.target``.
        Conflict: ``batch.other`` when there are answers to something else.
    """

    def __init__(
        self,
        subject: Subject,
        sources: Sequence[Path],
        target: Path,
        *,
        keep: Sequence[str] = (),
        part_rows: int = PART_ROWS,
        restart: bool = False,
    ) -> None:
        files = _find_files(sources)
        _require_free(target, files, restart=restart)
        self.target = target
        self.is_file = target.suffix.lower() in KINDS
        self.folder = target.with_name(f".{target.name}.parts") if self.is_file else target
        stats = [(file, file.stat()) for file in files]
        self.plan = Plan(
            seal=str(subject.seal),
            files=tuple((str(file), found.st_size, found.st_mtime_ns) for file, found in stats),
            keep=tuple(keep),
            parts=tuple(plan_parts(files, part_rows)),
        )
        self._settle(subject, restart=restart)
        self.task = Task(
            bundle=str(self.folder / f".{BUNDLE}"),
            seal=self.plan.seal,
            public_key=subject.public_key,
            target=str(self.folder),
            keep=tuple(keep),
        )

    def remaining(self) -> list[Part]:
        """Return the parts that nobody has answered yet."""
        return [part for part in self.plan.parts if not (self.folder / part.name).exists()]

    def run(self, place: Place = "here", workers: int | None = None) -> Iterator[int]:
        """Answer what is left; give the rows of each part when it is finished.

        Raises:
            MissingExtra: ``extra.missing`` for a cluster without its library.
            EverloopError: as `everloop.serve.batch.score_part`.
        """
        left = self.remaining()
        count = min(workers or os.cpu_count() or 1, len(left))
        if place == "ray":
            yield from _run_on_ray(self.task, left, workers)
        elif count <= 1:
            for part in left:
                yield score_part(self.task, part)
        else:
            # Fresh processes: a fork of one with threads may not come up.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(count, mp_context=context) as pool:
                futures = [pool.submit(score_part, self.task, part) for part in left]
                try:
                    for future in as_completed(futures):
                        yield future.result()
                finally:
                    pool.shutdown(cancel_futures=True)

    def finish(self) -> dict[str, int]:
        """Join the parts into the one file that was asked for; return its rows by status."""
        made = [self.folder / part.name for part in self.plan.parts]
        counts = count_statuses(made)
        if not self.is_file:
            shutil.rmtree(self.folder / f".{BUNDLE}", ignore_errors=True)
            return counts
        join_parts(made, self.target)
        shutil.rmtree(self.folder)
        return counts

    def _settle(self, subject: Subject, *, restart: bool) -> None:
        """Make the folder, or find it as this very command left it."""
        place = self.folder / f".{PLAN}"
        if restart and place.exists():
            # Only what a batch made: the folder may be somebody's own.
            for pattern in ("part-*.parquet", ".part-*", f".{PLAN}*"):
                for made in self.folder.glob(pattern):
                    made.unlink()
            shutil.rmtree(self.folder / f".{BUNDLE}", ignore_errors=True)
        if place.exists():
            if msgspec.json.decode(place.read_bytes(), type=Plan) != self.plan:
                raise Conflict(
                    "batch.other",
                    f"{self.folder} has answers of another version, or to other rows.",
                    hint="Choose another place, or throw them away with --restart.",
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise InvalidInput(
                "batch.target",
                f"{self.folder} is no empty folder.",
                hint="Choose another place for the answers.",
            )
        bundle = self.folder / f".{BUNDLE}"
        for name, data in subject.files.items():
            path = bundle / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        draft = self.folder / f".{PLAN}.{os.getpid()}"
        draft.write_bytes(msgspec.json.encode(self.plan))
        draft.replace(place)


def _require_free(target: Path, files: Sequence[Path], *, restart: bool) -> None:
    """Let pass a place whose answers, or rows, are nobody's."""
    if target.exists() and any(target.samefile(file) for file in files):
        raise InvalidInput(
            "batch.target",
            f"{target} holds the rows themselves.",
            hint="Choose another place for the answers.",
        )
    ending = target.suffix.lower()
    if ending in KINDS and target.is_dir():
        raise InvalidInput(
            "batch.target",
            f"{target} is a folder, and would be a file of answers.",
            hint="Choose another name.",
        )
    if ending[1:].isalpha() and ending not in KINDS and not target.is_dir():
        raise InvalidInput(
            "batch.target",
            f"Answers are not written as {ending}, and {target.name[:80]} would be a folder.",
            hint="End it in .parquet or .csv for one file, or name a folder for one file a part.",
        )
    if target.is_file() and not restart:
        raise Conflict(
            "batch.other",
            f"{target} is there already.",
            hint="Choose another place, or replace it with --restart.",
        )


def _find_files(sources: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        inside = sorted(source.rglob("*")) if source.is_dir() else [source]
        # Hidden files are drafts and plans, of ours and of others.
        files += [
            path.absolute()
            for path in inside
            if path.suffix in KINDS and not path.name.startswith(".")
        ]
    if files:
        return files
    raise InvalidInput(
        "batch.unreadable",
        "There is no Parquet or CSV file to read.",
        hint="Name files that end in .parquet or .csv, or folders of them.",
    )


def _run_on_ray(task: Task, parts: Sequence[Part], workers: int | None) -> Iterator[int]:
    try:
        import ray
    except ImportError as missing:
        raise MissingExtra(
            "extra.missing",
            "Scoring on Ray needs its library, which is not installed.",
            hint='Install it with: pip install "everloop[ray]"',
        ) from missing
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    library: Any = ray
    started = not library.is_initialized()
    if started:
        # A cluster by its usual variable RAY_ADDRESS, else one on this machine.
        library.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        ask = library.remote(score_part)
        waiting = [ask.remote(task, part) for part in parts]
        while waiting:
            done, waiting = library.wait(waiting)
            yield from library.get(done)
    finally:
        if started:
            library.shutdown()
