"""``everloop models load``, ``verify`` and ``predict``: a version's bytes at work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from everloop.cli import output
from everloop.cli.exporting import table_form, unwritable
from everloop.cli.session import Session
from everloop.core.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

KEY_BYTES = 32
MARKS = {True: "ok", False: "WRONG", None: "note"}


@click.command("load")
@click.argument("ref")
@click.option("--as-of", help="The time at which its alias is asked for.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def load(session: Session, ref: str, as_of: str | None, as_json: bool) -> int:
    """Load a version from verified bytes, as the server's policy allows, and say what it is."""
    from everloop.app.models import load_model

    with load_model(session.client, ref, as_of=as_of) as model:
        version = model.version
        if as_json:
            output.write_json(version)
            return 0
        output.write_fields(
            {
                "model": f"{version.name}@{version.version} (number {version.number})",
                "format": version.format,
                "artifact": version.artifact,
                "inputs": [f"{field.name} ({field.dtype})" for field in model.signature.inputs],
                "answers": list(model.outputs),
            }
        )
    return 0


@click.command("verify")
@click.argument("ref")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def verify(session: Session, ref: str, as_json: bool) -> int:
    """Reread all bytes of a version and say what does not hold; exits with 1 if anything."""
    from everloop.app.models import verify_model

    found = verify_model(session.client, ref)
    if as_json:
        output.write_json(found)
    else:
        output.write_table(
            ("", "what", "found"),
            [(MARKS[item.held], item.what, item.told) for item in found.findings],
        )
        output.write_clean(f"{found.version} {'holds' if found.held else 'DOES NOT HOLD'}")
    return 0 if found.held else 1


@click.command("verify-bundle")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--key", help="Hex of the public key that must have sealed it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: its description.")
def verify_bundle(folder: Path, key: str | None, as_json: bool) -> int:
    """Open a sealed bundle as a server does: its seal, every digest, and its golden answers.

    Without --key the seal is held against the key that the bundle names itself, which shows that
    nothing rotted, and not who sealed it.
    """
    from everloop.serve.bundle import open_bundle, read_key

    told = (key or read_key(folder)).strip()
    loaded = open_bundle(folder, _key_bytes(told))
    bundle, verdict = loaded.bundle, loaded.bundle.verdict
    loaded.close()
    if as_json:
        output.write_json(bundle)
        return 0
    whose = "" if key else " (as it says itself; compare it, or give --key)"
    output.write_fields(
        {
            "model": f"{bundle.model}@{bundle.semver} (number {bundle.number})",
            "artifact": bundle.artifact,
            "sealed by": told + whose,
            "runtime": bundle.runtime or bundle.format,
            "held against": verdict.reference if verdict else None,
            "largest difference": verdict.max_difference if verdict else None,
            "a row": f"{verdict.p50_us:.3g} us, 99 % within {verdict.p99_us:.3g}"
            if verdict
            else None,
            "best batch": f"{verdict.best_batch:,} rows, {verdict.rows_per_s:,.0f} a second"
            if verdict
            else None,
            "golden answers": f"{len(bundle.golden)} hold",
            "files": sorted((*bundle.files, *bundle.attachments)),
        }
    )
    return 0


def _key_bytes(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != KEY_BYTES:
        raise InvalidInput(
            "bundle.key_invalid",
            f"{text[:80]!r} is no public key.",
            hint="Give its 64 hexadecimal digits, as `everloop export bundle` prints them.",
        )
    return found


@click.command("predict")
@click.argument("ref")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--output",
    "-o",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file that ends in .csv or .parquet.",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object for each row.")
@click.pass_obj
def predict(  # noqa: PLR0917 -- one parameter an option
    session: Session, ref: str, file: Path, target: Path | None, force: bool, as_json: bool
) -> int:
    """Answer the rows of a CSV or Parquet file with a version; as CSV unless a file is named.

    The answers come in the order of the rows, and without the inputs.
    """
    from everloop.app.models import load_model

    if target is not None:
        table_form(target, force=force)
    rows = _read(file)
    with load_model(session.client, ref) as model:
        answers = model.predict_table(rows)
    if as_json:
        output.write_json(answers.to_pylist())
    else:
        _write(answers, target)
    return 0


def _read(file: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if file.suffix == ".parquet":
            return parquet.read_table(file)
        return csv.read_csv(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidInput(
            "model.rows_unreadable",
            f"{file.name[:80]!r} is no table: {str(error)[:200]}",
            hint="Give a CSV file with a line of names, or a Parquet file.",
        ) from error


def _write(answers: pa.Table, target: Path | None) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    if target is None:
        sink = pa.BufferOutputStream()
        csv.write_csv(answers, sink)
        output.write_clean(sink.getvalue().to_pybytes().decode().rstrip("\n"))
        return
    write = parquet.write_table if target.suffix.lower() == ".parquet" else csv.write_csv
    try:
        write(answers, str(target))
    except OSError as error:
        raise unwritable(target, error) from error
    output.write_note(f"{answers.num_rows:,} answers in {target}")
