"""``everloop models alias``: points an alias at a version, or takes it away."""

from __future__ import annotations

import click

from everloop.cli import output
from everloop.cli.session import Session
from everloop.core.errors import InvalidInput


@click.command("alias")
@click.argument("model")
@click.argument("alias")
@click.argument("version", required=False)
@click.option("--remove", is_flag=True, help="Take the alias away; its history stays.")
@click.option("--reason", "--why", "why", help="Why it moves; needed, and kept in its history.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def alias(  # noqa: PLR0917 -- one parameter an option
    session: Session,
    model: str,
    alias: str,
    version: str | None,
    remove: bool,
    why: str | None,
    as_json: bool,
) -> int:
    """Point an alias of a model at a version, given by number or semantic version."""
    from everloop.registry.model import AliasMove
    from everloop.registry.queries import AliasHistory, AliasMoveList
    from everloop.registry.verbs import MoveAlias

    if remove == (version is not None):
        raise click.UsageError("Give the version to point it at, or --remove.")
    if not (why or "").strip():
        raise InvalidInput(
            "alias.reason_missing",
            f"Nobody would know why {alias[:60]!r} was moved.",
            hint="Say it with --reason.",
        )
    ask = MoveAlias(model=model, alias=alias, version=version, why=why or "")
    made = session.perform("model.alias", ask, AliasMove, reason=why)
    if as_json:
        output.write_json(made)
        return 0
    known = AliasHistory(name=model, alias=alias, limit=1)
    move = session.perform("model.alias_history", known, AliasMoveList).items[0]
    before = f" (was {move.before})" if move.before else ""
    output.write_clean(f"{model}@{alias} -> {move.version or 'nothing'}{before}")
    return 0
