"""``everloop feedback``: the truth about predictions, from files."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click
import msgspec

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup
from everloop.cli.session import Session
from everloop.core.errors import InvalidInput


class LabelLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a file of labels."""

    prediction: str
    value: float | bool


@click.command("add")
@click.argument("file", type=click.Path(path_type=Path, exists=True, allow_dash=True))
@click.option("--source", default="file", help="Who says so, in a word.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def add(session: Session, file: Path, source: str, as_json: bool) -> int:
    """Join labels from a CSV file (columns prediction, value) or JSON lines; - reads the input.

    Labels may come late, twice, or corrected.
    """
    from everloop.app import sdk

    labels = list(_read_labels(file))
    receipt = sdk.add_feedback(labels, source=source, client=session.client)
    if as_json:
        output.write_json(receipt)
    else:
        output.write(
            f"{receipt.joined:,} joined, {receipt.corrected:,} corrected, "
            f"{receipt.repeated:,} known already, {len(receipt.unknown):,} unknown."
        )
        for key in receipt.unknown[:10]:
            output.write_clean(f"  unknown: {key}")
    return 0


def _read_labels(file: Path) -> Iterator[tuple[str, float | bool]]:
    if str(file) == "-":
        yield from _read_lines(sys.stdin, "-")
        return
    with file.open(encoding="utf-8", newline="") as stream:
        yield from (
            _read_csv(stream) if file.suffix.lower() == ".csv" else _read_lines(stream, file.name)
        )


def _read_csv(stream: TextIO) -> Iterator[tuple[str, float | bool]]:
    reader = csv.DictReader(stream)
    if not {"prediction", "value"} <= set(reader.fieldnames or ()):
        raise _wrong(1, "the header has no columns 'prediction' and 'value'")
    for row in reader:
        try:
            yield row["prediction"], float(row["value"])
        except (TypeError, ValueError) as error:
            raise _wrong(reader.line_num, f"{str(row['value'])[:40]!r} is no number") from error


def _read_lines(stream: TextIO, name: str) -> Iterator[tuple[str, float | bool]]:
    decoder = msgspec.json.Decoder(LabelLine)
    number = 0
    try:
        for line in stream:
            number += 1
            if line.strip():
                found = decoder.decode(line)
                yield found.prediction, found.value
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _wrong(number, f"{name[:60]}: {error}") from error


def _wrong(line: int, problem: str) -> InvalidInput:
    return InvalidInput(
        "feedback.unreadable",
        f"Line {line}: {problem}.",
        hint='Write CSV with prediction,value or JSON lines like {"prediction": "id", "value": 1}.',
    )


GROUP = VerbGroup(
    "feedback",
    BoundGroup(
        help="Feedback: late labels, joined with predictions by their ids.",
        bound={
            "list": Bound(
                "feedback.list",
                arguments=("deployment",),
                deployments=("deployment",),
                columns=("seq", "fresh", "corrected", "source", "received_at", "id"),
            ),
        },
        written={"add": add},
    ),
)
COMMANDS = {"feedback": GROUP}
