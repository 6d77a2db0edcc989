"""``everloop export edge``: a model version as one file for devices."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import click

from everloop.cli import output
from everloop.cli.session import Session
from everloop.core.digest import Digest
from everloop.core.errors import Conflict, IntegrityError


@click.command("edge")
@click.argument("version")
@click.option(
    "-o",
    "--output",
    "file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write, such as credit.pyz.",
)
@click.option("--mask", multiple=True, help="An input that devices never log.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def export_edge(
    session: Session, /, version: str, file: Path, mask: tuple[str, ...], **given: bool
) -> int:
    """Seal VERSION as one file that answers on a device, with a bare Python for trees.

    The version must have passed its gate, and the device's code must answer as its framework does.
    """
    from everloop.cli.exporting import unwritable
    from everloop.edge.queries import EdgeBundleView
    from everloop.edge.verbs import BuildEdge

    if file.exists() and not given["force"]:
        raise Conflict(
            "file.exists", f"{file.name} is there already.", hint="Use --force, or another name."
        )
    built = session.perform("edge.build", BuildEdge(version=version, mask=mask), EdgeBundleView)
    data = fetch_bundle(session, built.bundle.digest)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.chmod(0o755)
        draft.replace(file)
    except OSError as error:
        raise unwritable(file, error) from error
    if given["as_json"]:
        output.write_json(built)
        return 0
    parity = built.bundle.parity
    output.write_fields(
        {
            "file": str(file),
            "model": f"{built.model}@{built.version}",
            "size_bytes": built.bundle.size_bytes,
            "digest": built.bundle.digest,
            "key": built.bundle.key,
            "parity": f"{parity.rows:,} rows; {parity.different} differ, "
            f"by at most {parity.max_difference:.3g}",
            "next": f"python {file.name} verify",
        }
    )
    return 0


def fetch_bundle(session: Session, digest: Digest) -> bytes:
    """Return the bytes of a bundle, checked against its digest.

    Raises:
        NotFound: ``edge_bundle.not_found``.
        IntegrityError: ``edge.wrong_digest``.
    """
    from everloop.edge.queries import EdgePart, FetchEdge

    data = b""
    while True:
        ask = FetchEdge(digest=digest, offset=len(data))
        part = session.perform("edge.fetch", ask, EdgePart)
        data += part.data
        if len(data) >= part.size_bytes or not part.data:
            break
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
        raise IntegrityError(
            "edge.wrong_digest",
            "The bytes that came are not those that were sealed.",
            hint="Try again; if it stays so, run `everloop audit verify`.",
        )
    return data


COMMANDS = {"edge": export_edge}
