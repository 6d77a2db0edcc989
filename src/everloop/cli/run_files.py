"""``everloop runs download``: the files of a run, in a folder of one's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from everloop.cli import output
from everloop.cli.session import Session
from everloop.cli.text import clean_line


@click.command("download")
@click.argument("run")
@click.argument("path", default="")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="The folder for them; the one at hand when left out.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the files that were written.")
@click.pass_obj
def download(  # noqa: PLR0917 -- one parameter an option
    session: Session, run: str, path: str, to: Path, force: bool, as_json: bool
) -> int:
    """Write a run's files to a folder; PATH is a file or a folder of the run, all when left out.

    Each file is verified against its digest.
    """
    from everloop.track.download import download_artifacts

    with _bar(is_quiet=as_json) as tell:
        written = download_artifacts(session.client, run, path, to=to, replace=force, progress=tell)
    if as_json:
        output.write_json({"files": [str(file) for file in written]})
        return 0
    for file in written:
        output.write_clean(str(file))
    if not written:
        output.write("The run kept no files.")
    return 0


@contextmanager
def _bar(*, is_quiet: bool) -> Iterator[Callable[[Any, int], None] | None]:
    """Show how many bytes have come, on the error stream, where a person may look at it."""
    if is_quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("bytes", total=None)

        def tell(entry: Any, size: int) -> None:
            bar.update(task, advance=size, description=clean_line(entry.path)[-60:])

        yield tell
