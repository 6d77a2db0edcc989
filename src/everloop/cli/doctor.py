"""``everloop doctor``: everything that can be wrong with a project, and what to do."""

from __future__ import annotations

import click

from everloop.cli import output
from everloop.cli.session import Session

EXIT_PROBLEM = 1


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def doctor(session: Session, as_json: bool) -> int:
    """Check the folder, keys, database, bytes, configuration, extras, clock and server."""
    from everloop.app.diagnosis import Mark, examine

    found = examine(session.folder)
    if as_json:
        output.write_json({"checks": found})
    else:
        output.write_table(
            ("check", "", "what", "do"),
            [(item.name, item.mark.value, item.what, item.advice) for item in found],
        )
    return EXIT_PROBLEM if any(item.mark is Mark.BAD for item in found) else 0


COMMANDS = {"doctor": doctor}
