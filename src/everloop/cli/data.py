"""``everloop data``: datasets and their versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup
from everloop.cli.session import Session


def _show_check(answer: Any) -> None:
    name = f"{answer.version.name}@{answer.version.number}"
    if answer.passed:
        output.write_clean(f"{name} keeps its contract.")
        return
    output.write_clean(f"{name} breaks {len(answer.violations)} promises:")
    output.write_table(
        ("column", "rule", "rows", "what"),
        [(item.column, item.rule, item.count, item.message) for item in answer.violations],
    )


def _show_profile(answer: Any) -> None:
    columns = msgspec.to_builtins(answer.profile)["columns"]
    rows = columns.items() if isinstance(columns, dict) else enumerate(columns)
    output.write_clean(f"{answer.name}@{answer.number}")
    names: dict[str, None] = {}
    flat = []
    for name, column in rows:
        kept = {k: v for k, v in column.items() if not isinstance(v, dict | list)}
        names |= dict.fromkeys(kept)
        flat.append((name, kept))
    headers = [key for key in names if key != "name"]
    output.write_table(
        ("column", *headers),
        [(kept.get("name", name), *(kept.get(key) for key in headers)) for name, kept in flat],
    )


@click.command("commit")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--message", "-m", default="", help="What this version is.")
@click.option("--allow-violations", is_flag=True, help="Commit although the contract is broken.")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def commit(  # noqa: PLR0917 -- one parameter an option
    session: Session,
    name: str,
    path: Path,
    message: str,
    allow_violations: bool,
    reason: str | None,
    as_json: bool,
) -> int:
    """Commit a file, or all files of a folder, as the next version of a dataset.

    The same content again gives the version that is there.
    """
    from everloop.app.client import with_reason
    from everloop.data.snapshot import commit_path

    version = commit_path(
        with_reason(session.client, reason),
        name,
        path,
        message=message,
        allow_violations=allow_violations,
    )
    if as_json:
        output.write_json(version)
    else:
        rows = "" if version.rows is None else f", {version.rows:,} rows"
        output.write_clean(
            f"{version.name}@{version.number}: {version.size_bytes:,} bytes{rows}, {version.root}"
        )
    return 0


GROUP = VerbGroup(
    "data",
    BoundGroup(
        help="Datasets: named data, in versions that never change.",
        bound={
            "list": Bound(
                "data.search",
                columns=("name", "versions", "rows", "bytes=size_bytes", "updated_at"),
            ),
            "versions": Bound(
                "dataset.search",
                arguments=("name",),
                columns=(
                    "name",
                    "number",
                    "rows",
                    "bytes=size_bytes",
                    "created_at",
                    "message",
                    "root",
                ),
            ),
            "show": Bound("data.show", arguments=("ref",)),
            "profile": Bound("data.profile", arguments=("ref",), show=_show_profile),
            "check": Bound(
                "data.check",
                arguments=("ref",),
                show=_show_check,
                exit_code=lambda answer: 0 if answer.passed else 6,
            ),
        },
        written={"commit": commit},
    ),
)
COMMANDS = {"data": GROUP}
