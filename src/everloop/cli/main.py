"""The command ``everloop``: the table of its commands, loaded when used, and the process edge."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from everloop.cli import failures
from everloop.cli.session import Session
from everloop.core.errors import EverloopError

# Name -> module of its command or group (attribute `command`), and what it is for. The texts stand
# here so that the help needs none of the modules.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("setup", "Make this folder an Everloop project."),
    "up": ("setup", "Run the control plane: pages, API, loop and serving."),
    "doctor": ("doctor", "Check the project's folder, keys, database and server."),
    "configure": ("setup", "Put everloop.yaml in force."),
    "run": ("running", "Run a pipeline of the project."),
    "data": ("data", "Datasets: commit, list, show, profile, check."),
    "runs": ("runs", "Runs: list, show, compare, metrics, files, delete."),
    "experiments": ("experiments", "Experiments: groups of runs; list, rename, tag, delete."),
    "models": ("models", "Models: versions, aliases and their history."),
    "gate": ("gate", "Gates: evaluate, show, waive, approve."),
    "release": ("release", "Deployments and releases: start, watch, promote."),
    "rollback": ("release", "Take a deployment back to the version before, at once."),
    "fleet": ("fleet", "Fleets of devices: enrol, release, step, take back."),
    "predict": ("predicting", "Answer the rows of files by a version, in batches."),
    "predictions": ("monitor", "Answered requests, with their proofs."),
    "feedback": ("feedback", "Tell the truth about predictions."),
    "monitor": ("monitor", "Windows, losses and alerts of a deployment."),
    "loop": ("loop", "The loop: its runs and its switch."),
    "lineage": ("govern", "Where a thing came from, and what came of it."),
    "card": ("govern", "The model card, written from evidence."),
    "audit": ("govern", "The ledger: list, verify, export, prove."),
    "trash": ("trash", "The trash: what is in it, what a purge would break, free the space."),
    "import": ("importing", "Bring in runs and models from MLflow, W&B, Neptune, TensorBoard."),
    "export": (
        "exporting",
        "Write rows as Parquet or CSV; a model as an image, manifests or a unit.",
    ),
    "token": ("access", "Tokens and login links."),
    "actor": ("access", "People, services and their roles."),
    "project": ("access", "Projects of this instance."),
    "sync": ("setup", "Ship tracking data that waits in the spool."),
    "completion": ("setup", "Print the shell completion for bash, zsh or fish."),
}


class CommandTable(click.Group):
    """The root: its help is made from the table alone, a command is imported when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"everloop.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the section of the help that lists the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, name those that look alike."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            advice = f"Did you mean '{close[0]}'?" if close else "See `everloop --help`."
            raise click.UsageError(f"There is no command {args[0][:60]!r}. {advice}", ctx)
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    del option
    if value:
        from everloop.app.version import __version__

        click.echo(f"everloop {__version__}")
        ctx.exit()


@click.command(
    cls=CommandTable,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--folder",
    "-C",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder in the project; the present one when left out.",
)
@click.option("--project", help="Name of the project, when it is not the one in everloop.yaml.")
@click.option("--url", help="Address of a server (or EVERLOOP_URL), with EVERLOOP_TOKEN.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@click.pass_context
def cli(ctx: click.Context, folder: Path | None, project: str | None, url: str | None) -> None:
    """Everloop: one system for the whole life of a machine-learning model.

    Start with `everloop init` in a project's folder, then `everloop up`.
    """
    session = Session(folder=folder, project=project, url=url)
    ctx.obj = session
    ctx.call_on_close(session.close)


def run() -> NoReturn:
    """Be the program: run the command line, then end the process."""
    status = [failures.OTHER]
    # Registered before anything else, so that it comes after everything else.
    atexit.register(_leave, status)
    status[0] = main()
    sys.exit(status[0])


def _leave(status: list[int]) -> None:
    """End without the destructors of libraries.

    A process that ends while Arrow's threads still start is aborted by them ("terminate called
    without an active exception"), after all its work was done.
    """
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit code."""
    try:
        result = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="everloop",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except EverloopError as error:
        return failures.report(error)
    except click.ClickException as error:
        return _report_usage(error)
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("Stopped.\n")
        return failures.INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`): nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failures.OTHER
    except Exception as error:  # noqa: BLE001 -- the process edge
        return failures.report_unexpected(error)
    return result if isinstance(result, int) else 0


def _report_usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stdout.write(error.format_message() + "\n")
        return failures.USAGE
    ctx = getattr(error, "ctx", None)
    where = ctx.command_path if ctx is not None else "everloop"
    failures.say(error.format_message(), f"See `{where} --help`.")
    return failures.USAGE
