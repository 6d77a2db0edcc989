"""Completes the names of fields inside ``--filter`` and ``--order``, in the shell."""

from __future__ import annotations

import re
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

_LAST_WORD = re.compile(r"[\w.]*\Z")
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completer(verb: str, option: str) -> Completer | None:
    """Return what completes an option of a verb that searches; None for all others."""
    noun, _, action = verb.partition(".")
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
