"""``everloop token``, ``actor`` and ``project``: who may do what, and where."""

from __future__ import annotations

from typing import Any

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup
from everloop.cli.session import Session


def _show_token(answer: Any) -> None:
    output.write_clean(answer.secret)
    output.write("Shown this once. Keep it like a password; it is stored only as its hash.")
    output.write(f"It ends at {answer.expires_at:%Y-%m-%d %H:%M} UTC.")


@click.command("login")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def login(session: Session, as_json: bool) -> int:
    """Print a link that opens the pages once, within 15 minutes."""
    from everloop.app.server import login_link

    link = login_link(session.client)
    if as_json:
        output.write_json({"url": link})
    else:
        output.write_clean(link)
    return 0


TOKEN = VerbGroup(
    "token",
    BoundGroup(
        help="Tokens: secrets that let programs act within a scope.",
        bound={
            "create": Bound("token.create", arguments=("name",), show=_show_token),
            "list": Bound(
                "token.list",
                columns=("name", "actor", "kind", "scope", "expires_at", "revoked_at", "id"),
            ),
            "revoke": Bound("token.revoke", arguments=("id",), confirm="End token {id} for good?"),
        },
        written={"login": login},
    ),
)
ACTOR = VerbGroup(
    "actor",
    BoundGroup(
        help="Actors: people and services, and their roles.",
        bound={
            "create": Bound("actor.create", arguments=("name",)),
            "list": Bound("actor.list", columns=("name", "kind", "disabled", "id")),
            "disable": Bound(
                "actor.disable",
                arguments=("actor",),
                confirm="Refuse everything that {actor} asks from now on?",
            ),
            "grant": Bound("role.grant", arguments=("actor", "role")),
            "revoke": Bound(
                "role.revoke",
                arguments=("actor", "role"),
                confirm="Take the role {role} from {actor}?",
            ),
        },
    ),
)
PROJECT = VerbGroup(
    "project",
    BoundGroup(
        help="Projects: name spaces and access boundaries.",
        bound={
            "list": Bound("project.list", columns=("name", "created_at", "id")),
            "create": Bound("project.create", arguments=("name",)),
            "settings": Bound("project.settings"),
        },
    ),
)
COMMANDS = {"token": TOKEN, "actor": ACTOR, "project": PROJECT}
