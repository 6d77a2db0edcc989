"""``everloop init``, ``up``, ``configure``, ``sync`` and ``completion``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from everloop.cli import output
from everloop.cli.session import Session
from everloop.core.errors import InvalidInput

WAITING = 8
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--name", help="Name of the project; the folder's name when left out.")
@JSON
@click.pass_obj
def init(session: Session, folder: Path | None, name: str | None, as_json: bool) -> int:
    """Make this folder an Everloop project: everloop.yaml, .everloop and .gitignore.

    Repeating it changes nothing that is there.
    """
    from everloop.app.starting import start_project

    made = start_project(
        (folder or session.folder or Path.cwd()).absolute(), name or session.project
    )
    if as_json:
        output.write_json(made)
        return 0
    output.write_clean(f"Project {made.project} in {made.folder}")
    for file in made.written:
        output.write_clean(f"  wrote {file}")
    output.write(
        "Next: `everloop up` shows its pages, `everloop data commit` takes its first data."
    )
    return 0


@click.command("up")
@click.option("--host", help="Interface to listen on; loopback unless everloop.yaml says other.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.")
@click.option("--login", "show_login", is_flag=True, help="Print a login link in any case.")
@click.option("--no-serve", is_flag=True, help="Do not run the deployments' serving processes.")
@click.option("--no-loop", is_flag=True, help="Do not run the loop.")
@click.pass_obj
def up(  # noqa: PLR0917 -- one parameter an option
    session: Session,
    host: str | None,
    port: int | None,
    show_login: bool,
    no_serve: bool,
    no_loop: bool,
) -> int:
    """Run the control plane until it is stopped: pages, API, the loop and the serving processes."""
    # Idle threads of the numeric libraries cost memory and give the control plane nothing.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    from everloop.app.server import ServerOptions, run_server

    options = ServerOptions(
        host=host, port=port, show_login=show_login, serve=not no_serve, loop=not no_loop
    )
    run_server(session.home(), options, project=session.project, say=output.write_clean)
    return 0


@click.command("configure")
@click.option("--reason", help="Why, for the record.")
@JSON
@click.pass_obj
def configure(session: Session, reason: str | None, as_json: bool) -> int:
    """Check everloop.yaml and put it in force; the same content again changes nothing."""
    from everloop.app.starting import put_in_force

    view = put_in_force(session.client, session.home(), reason=reason)
    if as_json:
        output.write_json(view)
    else:
        output.write(f"Configuration {view.number} is in force.")
    return 0


@click.command("sync")
@JSON
@click.pass_obj
def sync(session: Session, as_json: bool) -> int:
    """Ship the runs that wait in the spool, such as those of a time without the server."""
    from everloop.track.sync import Shipped, list_spools, sync_spool

    client = session.client
    total, done = len(list_spools(client.spool)), 0

    def tell(item: Shipped) -> None:
        nonlocal done
        done += 1
        if not as_json:
            words = item.problem or item.status or "waits"
            output.write_note(f"{done} of {total}: {item.run}, {item.points:,} points, {words}")

    report = sync_spool(client.spool, client, progress=tell) if total else None
    if as_json:
        output.write_json(report or {"items": []})
    elif report is None or not report.items:
        output.write("Nothing waits.")
    else:
        output.write_table(
            ("run", "points", "status", "refused", "problem"),
            [
                (item.run, item.points, item.status, item.refused, item.problem)
                for item in report.items
            ],
        )
    return WAITING if report is not None and report.waiting else 0


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script of a shell.

    For bash: everloop completion bash > ~/.local/share/bash-completion/completions/everloop
    """
    from click.shell_completion import get_completion_class

    from everloop.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise InvalidInput("shell.unknown", f"No completion for {shell}.", hint="Use bash.")
    output.write(kind(cli, {}, "everloop", "_EVERLOOP_COMPLETE").source())
    return 0


COMMANDS = {"init": init, "up": up, "configure": configure, "sync": sync, "completion": completion}
