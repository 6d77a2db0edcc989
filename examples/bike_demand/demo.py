"""The whole life of a model, once around, on two real years of bike rentals.

Trains on the first half of 2011, gates, releases, serves in a process of its own, and replays the
following hours in order through the real HTTP endpoint. Labels arrive a day late. What the loop
does about the growing demand is its own decision; nothing here tells it when to act. Near the end
somebody tries to release two bad models.

    python demo.py [--folder DIR] [--seed N] [--days N] [--json FILE]

A demo that was stopped, by whatever means, goes on where it was when started again on its folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from stages import Story  # noqa: E402 -- the example's own modules lie beside this file

PROJECT_FILES = ("everloop.yaml", "features.py", "training.py", "pipeline.py", "hours.py")


def main() -> int:
    """Run the demo and print what happened."""
    options = _options()
    folder = Path(options.folder).absolute()
    _prepare(folder, fresh=options.fresh)
    began = time.monotonic()
    with ExitStack() as stack:
        story = Story(folder, seed=options.seed, days=options.days, stack=stack)
        story.first_version()
        story.replay()
        story.try_bad_models()
        story.finish()
        story.report(time.monotonic() - began)
        if options.json:
            Path(options.json).write_text(json.dumps(story.figures, indent=2))
        if sys.stdout.isatty() and not options.no_wait:
            story.wait_for_reader()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", default=str(HERE / "work"), help="project folder to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument("--days", type=int, default=0, help="days to replay; 0 for all")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--fresh", action="store_true", help="begin anew, removing the folder")
    parser.add_argument("--no-wait", action="store_true", help="do not keep the pages open")
    return parser.parse_args()


def _is_done(folder: Path) -> bool:
    """Tell whether an earlier demo there came to its end; one that did not goes on."""
    try:
        return bool(json.loads((folder / "demo.json").read_text())["is_done"])
    except (OSError, ValueError, KeyError):
        return False


def _prepare(folder: Path, *, fresh: bool) -> None:
    if folder.exists() and (fresh or _is_done(folder)):
        if not (folder / ".everloop").is_dir():
            sys.exit(f"error: {folder} is no demo folder; it is not removed")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROJECT_FILES:
        if not (folder / name).exists():
            _copy(HERE / name, folder / name)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for file in (HERE / "data").iterdir():
        if not (data / file.name).exists():
            _copy(file, data / file.name)


def _copy(source: Path, target: Path) -> None:
    """Copy a file so that it appears whole, whatever is killed."""
    draft = target.with_name(f".{target.name}.new")
    shutil.copy(source, draft)
    draft.replace(target)


if __name__ == "__main__":
    sys.exit(main())
