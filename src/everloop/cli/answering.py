"""``everloop models load``, ``verify`` and ``predict``: a version's bytes at work."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from everloop.cli import output
from everloop.cli.exporting import table_form, unwritable
from everloop.cli.session import Session
from everloop.core.errors import IntegrityError, InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

KEY_BYTES = 32
ITS_OWN_WORD = " (as it says itself; compare it, or give --key)"
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
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--key", help="Hex of the public key that must have sealed it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: its description.")
def verify_bundle(bundle: Path, key: str | None, as_json: bool) -> int:
    """Open a sealed bundle as a server does: its seal, every digest, and its golden answers.

    A folder is a server's bundle, a file a device's.

    Without --key the seal is held against the key that the bundle names itself, which shows that
    nothing rotted, and not who sealed it.
    """
    from everloop.serve.bundle import open_bundle, read_key

    if bundle.is_file():
        return _verify_edge(bundle, key, as_json=as_json)
    told = (key or read_key(bundle)).strip()
    loaded = open_bundle(bundle, _key_bytes(told))
    found, verdict = loaded.bundle, loaded.bundle.verdict
    loaded.close()
    if as_json:
        output.write_json(found)
        return 0
    output.write_fields(
        {
            "model": f"{found.model}@{found.semver} (number {found.number})",
            "artifact": found.artifact,
            "sealed by": told + ("" if key else ITS_OWN_WORD),
            "runtime": found.runtime or found.format,
            "held against": verdict.reference if verdict else None,
            "largest difference": verdict.max_difference if verdict else None,
            "a row": f"{verdict.p50_us:.3g} us, 99 % within {verdict.p99_us:.3g}"
            if verdict
            else None,
            "best batch": f"{verdict.best_batch:,} rows, {verdict.rows_per_s:,.0f} a second"
            if verdict
            else None,
            "golden answers": f"{len(found.golden)} hold",
            "files": sorted((*found.files, *found.attachments)),
        }
    )
    return 0


def _verify_edge(file: Path, key: str | None, *, as_json: bool) -> int:
    """Open an edge bundle with the device's own code."""
    from everloop.edge.device.bundle import open_bundle
    from everloop.edge.device.refusal import EdgeError

    try:
        opened = open_bundle(file, None if key is None else _key_bytes(key.strip()))
        golden = opened.check_golden()
    except EdgeError as error:
        raise IntegrityError(error.code, error.args[0], hint=error.hint) from error
    told = opened.manifest
    if as_json:
        output.write_json(told)
        return 0
    output.write_fields(
        {
            "model": f"{told['model']}@{told['version']} (number {told['number']})",
            "artifact": told["artifact"],
            "sealed by": told["key"] + ("" if opened.is_pinned else ITS_OWN_WORD),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "golden answers": f"{golden} hold",
            "files": sorted(told["files"]),
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
