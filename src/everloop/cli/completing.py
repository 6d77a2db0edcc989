"""Completes what somebody types in the shell: fields of filters, and names that exist."""

from __future__ import annotations

import re
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from everloop.cli.session import Session

_LAST_WORD = re.compile(r"[\w.]*\Z")
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completer(verb: str, option: str) -> Completer | None:
    """Return what completes an option or argument of a verb; None where nothing does."""
    noun, _, action = verb.partition(".")
    if option in {"deployment", "release"} and noun in {"release", "deployment"}:
        return _complete_names(option)
    if action != "search" or option not in {"filter", "order"}:
        return None

    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del context, parameter
        from everloop.app.verbs import load_verbs
        from everloop.core.filter.vocabulary import declared_vocabularies

        load_verbs()
        vocabulary = declared_vocabularies()[noun]
        word = _LAST_WORD.search(incomplete)
        assert word is not None
        before = incomplete[: word.start()]
        return [
            CompletionItem(before + name, help=help)
            for name, help in vocabulary.described()
            if name.startswith(word.group())
        ]

    return complete


def _complete_names(what: str) -> Completer:
    """Return what completes the name of a deployment or the id of a release that exists."""

    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del parameter
        from everloop.core.errors import EverloopError

        session = context.find_object(Session) or Session()
        try:
            found = _names(session, what)
        except (EverloopError, OSError):  # whoever presses the key wants no error, but no names
            return []
        finally:
            session.close()
        return [
            CompletionItem(name, help=help) for name, help in found if name.startswith(incomplete)
        ]

    return complete


def _names(session: Session, what: str) -> list[tuple[str, str]]:
    from everloop.release.queries import DeploymentList, ListDeployments, ListReleases, ReleaseList

    if what == "deployment":
        deployments = session.perform("deployment.list", ListDeployments(), DeploymentList)
        return [(item.deployment.name, item.model) for item in deployments.items]
    releases = session.perform("release.list", ListReleases(), ReleaseList)
    return [
        (item.release.id, f"{item.candidate} to {item.deployment}: {item.release.state.value}")
        for item in releases.items
    ]
