"""Templates and how values are written in them; everything a user chose is escaped."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from everloop.ui import words
from everloop.ui.prose import markdown

NOTHING: Final = "–"
_UNITS: Final = ("B", "KB", "MB", "GB", "TB")
# Kinds that stand in the ledger but are no part of a lineage.
_NO_PAGE: Final = frozenset({"actor", "ledger_entry", "project", "token", "verb"})
# Overrides, embeddings and isolates of direction; marks, which only help mixed text, are not here.
_TURNING: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_TAG_OR_TURN: Final = re.compile(
    "<textarea.*?</textarea>|<[^>]*>|[\u202a-\u202e\u2066-\u2069]", re.DOTALL
)
# Forms post with an Origin only under a policy other than no-referrer, and the guard wants one.
_HEADERS: Final = {"cache-control": "no-store", "referrer-policy": "same-origin"}


def page(template: str, **context: object) -> str:
    """Return the text of a page."""
    return _shown_as_written(_environment().get_template(template).render(**context))


def _shown_as_written(text: str) -> str:
    """Name the characters that turn the direction of text, so that no name looks like another.

    Within tags they stay: what a form sends back must be what it was. So they do in what is edited.
    """
    if not _TURNING.search(text):
        return text
    return _TAG_OR_TURN.sub(
        lambda found: f"⟨U+{ord(found[0]):04X}⟩" if _TURNING.fullmatch(found[0]) else found[0], text
    )


def html(text: str, *, status: int = 200) -> Response:
    """Return a page as an answer that nobody keeps."""
    return HTMLResponse(text, status_code=status, headers=dict(_HEADERS))


def address(*segments: object, **params: object) -> str:
    """Return a path on this server; every part is quoted, parameters without a value left out."""
    path = "/" + "/".join(quote(str(segment), safe="@:") for segment in segments)
    given = {key: str(value) for key, value in params.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def when(instant: datetime | None) -> Markup | str:
    """Write an instant to the minute, with the exact one behind it."""
    if instant is None:
        return NOTHING
    exact = instant.astimezone(UTC).isoformat(" ", "seconds")[:19]
    return Markup(  # noqa: S704 -- digits alone
        f'<time datetime="{exact.replace(" ", "T")}Z" title="{exact} UTC">{exact[:16]}</time>'
    )


def number(value: float | str | None) -> str:
    """Write a number with the digits that matter."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    try:
        amount = float(value)
    except ValueError:
        return str(value)
    if amount == int(amount) and abs(amount) < 1e15 if abs(amount) < float("inf") else False:
        return f"{int(amount):,}"
    return f"{amount:.4g}" if abs(amount) < 1e4 else f"{amount:,.0f}"


def size(count: int | None) -> str:
    """Write a number of bytes."""
    if count is None:
        return NOTHING
    amount, unit = float(count), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def span(seconds: float | None) -> str:
    """Write a length of time in its two largest units."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for unit, length, below, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part} {below}"
    return f"{whole // 60} min {whole % 60} s"


def evalue(log: float | None) -> str:
    """Write evidence that is kept as its natural logarithm."""
    if log is None:
        return NOTHING
    if log > math.log(1e6):
        return f"10^{log / math.log(10):.0f}"
    return number(math.exp(log))


def percent(share: float | None) -> str:
    """Write a part of one."""
    return NOTHING if share is None else f"{share * 100:.3g} %"


def digest(text: str | None) -> Markup | str:
    """Write a digest short, with the whole one behind it."""
    if not text:
        return NOTHING
    algorithm, _, value = text.partition(":")
    short = f"{algorithm}:{value[:10]}…" if value else algorithm[:12]
    return Markup('<code class="digest" title="{}">{}</code>').format(text, short)


def short_id(text: str | None) -> Markup | str:
    """Write the random end of an id, with the whole one behind it."""
    if not text:
        return NOTHING
    return Markup('<code class="digest" title="{}">{}</code>').format(text, text[-8:])


@pass_context
def who(context: Context, actor: str | None) -> Markup | str:
    """Write an actor by name if the visitor may know it, else by the end of the id."""
    people: Mapping[str, str] = context.get("people", {})
    name = people.get(actor or "")
    return escape(name) if name else short_id(actor)


@pass_context
def within(context: Context, *segments: object, **params: object) -> str:
    """Return the address of a page of the project at hand."""
    return address("p", context["project"], *segments, **params)


@pass_context
def node(context: Context, ref: str | None) -> Markup | str:
    """Link a lineage node, such as ``run:<id>``, to its page."""
    if not ref:
        return NOTHING
    kind, _, key = ref.partition(":")
    if kind in _NO_PAGE:
        return escape(f"{kind} {key if kind == 'verb' else key[-8:]}")
    where = address("p", context["project"], "ref", ref)
    label = f"{kind.replace('_', ' ')} {key.rpartition(':')[2][-8:]}"
    return Markup('<a href="{}" title="{}">{}</a>').format(where, ref, label)


def macro(template: str, name: str) -> Callable[..., str]:
    """Return a macro of a template, to be called from Python."""
    found: Callable[..., str] = getattr(_environment().get_template(template).module, name)
    return found


@cache
def static_version() -> str:
    """Return a short digest of our static files; it changes the address when they change."""
    folder = resources.files("everloop.ui") / "static"
    parts = (folder, folder / "vendor")
    files = [file for part in parts for file in part.iterdir() if file.is_file()]
    mixed = b"".join(file.read_bytes() for file in sorted(files, key=lambda file: file.name))
    return hashlib.sha256(mixed).hexdigest()[:10]


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("everloop.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "when": when,
        "number": number,
        "size": size,
        "span": span,
        "percent": percent,
        "evalue": evalue,
        "digest": digest,
        "short": short_id,
        "who": who,
        "node": node,
        "plain": words.plain,
        "markdown": markdown,
    }
    made.globals |= {
        "address": address,
        "within": within,
        "static_version": static_version,
        "tone": words.tone,
        "sentence": words.sentence,
    }
    return made
