"""Makes commands from verbs: arguments and options are the fields of the verb's input.

A command is described by a `Bound`; its options, their types, limits and help texts come from the
verb's declaration, so a command cannot drift away from what the verb takes.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import getdoc
from typing import Any, get_args

import click
import msgspec

from everloop.cli import output
from everloop.cli.completing import completer
from everloop.cli.session import Session
from everloop.core.errors import InvalidInput

Show = Callable[[msgspec.Struct], None]
COLUMNS_HELP = "What to show, separated by commas; params.x, tags.x and metrics.x where there are."
_TYPE_WORDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "yes or no"}
_ATTRIBUTE = re.compile(r"^(?P<name>\w+): (?P<text>.*)$")


@dataclass(frozen=True, slots=True)
class Bound:
    """How a command presents a verb.

    Attributes:
        verb: Name of the verb.
        arguments: Fields given by position, in order.
        columns: Of a listing: ``header=path`` or just ``path``, dotted into an item.
        rows: Field of the answer that holds the items.
        deployments: Fields that take a deployment's id on the wire and its name here.
        hidden: Fields that are not offered.
        fixed: Fields that always have one value here, and are not offered.
        confirm: Question to ask before performing, unless --yes; None for harmless verbs.
        show: Prints the answer for people; by its fields when None.
        exit_code: Gives the exit code for an answer, where the answer itself can be a no.
    """

    verb: str
    arguments: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: str = "items"
    deployments: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    fixed: Mapping[str, object] = field(default_factory=dict)
    confirm: str | None = None
    show: Show | None = None
    exit_code: Callable[[Any], int] | None = None


@dataclass
class BoundGroup:
    """The commands of one group, by name: bound to verbs, or written by hand."""

    help: str
    bound: dict[str, Bound] = field(default_factory=dict)
    written: dict[str, click.Command] = field(default_factory=dict)


class VerbGroup(click.Group):
    """A group whose bound commands are made when they are asked for."""

    def __init__(self, name: str, table: BoundGroup) -> None:
        super().__init__(name, help=table.help, no_args_is_help=True)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, bound ones first."""
        return [*self.table.bound, *self.table.written]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Make or return a command."""
        bound = self.table.bound.get(cmd_name)
        return make_command(cmd_name, bound) if bound else self.table.written.get(cmd_name)


def make_command(name: str, bound: Bound) -> click.Command:
    """Return the command of a bound verb."""
    verb = _find(bound.verb)
    params: list[click.Parameter] = _parameters(bound)
    if bound.columns:
        params.append(click.Option(["--columns"], help=COLUMNS_HELP))
    params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."))
    if not verb.is_query:
        params.append(click.Option(["--reason"], help="Why, for the record."))
    if bound.confirm:
        params.append(click.Option(["--yes", "-y"], is_flag=True, help="Do not ask."))

    @click.pass_obj
    def perform(session: Session, /, **given: Any) -> int:
        return _perform(session, bound, given)

    text = (getdoc(verb.handler) or "").partition("\nRaises:")[0].strip()
    return click.Command(name, params=params, callback=perform, help=text)


def _perform(session: Session, bound: Bound, given: dict[str, Any]) -> int:
    as_json, reason = given.pop("as_json"), given.pop("reason", None)
    columns = _chosen(bound, given.pop("columns", None))
    agreed = given.pop("yes", True)
    if bound.confirm and not agreed:
        confirm(bound.confirm.format(**given))
    verb = _find(bound.verb)
    for name in bound.deployments:
        if given.get(name) is not None:
            given[name] = deployment_id(session, str(given[name]))
    ask = to_ask(bound.verb, {**given, **bound.fixed})
    answer = session.perform(bound.verb, ask, verb.answer, reason=reason)
    if as_json:
        output.write_json(answer)
    elif bound.columns:
        nothing = "Nothing meets the filter." if given.get("filter") else "Nothing there yet."
        show_items(answer, replace(bound, columns=columns), nothing)
    else:
        (bound.show or output.write_fields)(answer)
    return bound.exit_code(answer) if bound.exit_code else 0


def confirm(question: str) -> None:
    """Ask for consent; a script that nobody answers is told how to give it beforehand.

    Raises:
        InvalidInput: ``answer.missing`` when there is nobody to ask.
    """
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort as error:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise InvalidInput(
            "answer.missing",
            "Nobody is there to answer.",
            hint="Give --yes where there is no terminal.",
        ) from error
    if not agreed:
        raise click.Abort


def to_ask(verb_name: str, given: dict[str, Any]) -> msgspec.Struct:
    """Return a verb's input made of what a command line gave.

    Raises:
        InvalidInput: ``input.invalid``.
    """
    fields = {name: value for name, value in given.items() if value is not None and value != ()}
    try:
        ask: msgspec.Struct = msgspec.convert(fields, _find(verb_name).ask, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "input.invalid",
            f"{_in_words(str(error))}.",
            hint="The command's --help states what it takes.",
        ) from error
    return ask


def _in_words(problem: str) -> str:
    """Return what a check of types found, in words for a command line."""
    told, found, place = problem.partition(" - at ")
    for name, words in _TYPE_WORDS.items():
        told = told.replace(f"`{name}`", words)
    option = place.strip("`").removeprefix("$.").replace("_", "-")
    return f"{option}: {told[:1].lower()}{told[1:]}"[:300] if found else told[:300]


def deployment_id(session: Session, name: str) -> str:
    """Return the id of a deployment given by name, ref or id."""
    from everloop.release.queries import DeploymentView, ShowDeployment

    ask = ShowDeployment(deployment=name)
    return session.perform("deployment.show", ask, DeploymentView).deployment.id


def show_items(answer: msgspec.Struct, bound: Bound, nothing: str = "Nothing there yet.") -> None:
    """Print the items of a listing as a table."""
    pairs = [column.partition("=") for column in bound.columns]
    headers = [header.replace("_", " ") for header, _, _ in pairs]
    paths = [path or header for header, _, path in pairs]
    items = list(getattr(answer, bound.rows))
    if not items:
        output.write(nothing)
        return
    output.write_table(headers, ([output.pick(item, path) for path in paths] for item in items))
    following = getattr(answer, "next", None)
    if following is not None:
        output.write_clean(f"More with: --after {following}")


def _chosen(bound: Bound, wanted: str | None) -> tuple[str, ...]:
    """Return the columns that were asked for, those of the command when none were.

    Raises:
        InvalidInput: ``columns.unknown``.
    """
    if wanted is None:
        return bound.columns
    item = _item_type(_find(bound.verb).answer, bound.rows)
    known = item.__struct_fields__
    shown = {column.partition("=")[0]: column for column in bound.columns}
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    chosen = tuple(shown.get(name, name) for name in names)
    unknown = [name for name in names if name not in shown and name.partition(".")[0] not in known]
    if unknown or not chosen:
        raise InvalidInput(
            "columns.unknown",
            f"There is no column {(unknown or [wanted])[0][:60]!r}.",
            hint=f"There are {', '.join(dict.fromkeys([*shown, *known]))}.",
        )
    return chosen


def _item_type(answer: type[msgspec.Struct], rows: str) -> type[msgspec.Struct]:
    found = next(field.type for field in msgspec.structs.fields(answer) if field.name == rows)
    item: type[msgspec.Struct] = get_args(found)[0]
    return item


def _find(name: str) -> Any:
    from everloop.app.verbs import load_verbs
    from everloop.kernel.verbs import find_verb

    load_verbs()
    found = find_verb(name)
    if found is None:
        message = f"no verb {name}"
        raise LookupError(message)
    return found


def _parameters(bound: Bound) -> list[click.Parameter]:
    from msgspec import inspect

    verb = _find(bound.verb)
    info = inspect.type_info(verb.ask)
    assert isinstance(info, inspect.StructType)
    texts = field_help(verb.ask)
    made: dict[str, click.Parameter] = {}
    for item in info.fields:
        if item.name in bound.hidden or item.name in bound.fixed:
            continue
        kind = _click_type(item.type)
        if kind is None:
            if item.required:
                message = f"{bound.verb}: {item.name} cannot be given on a command line"
                raise TypeError(message)
            continue
        made[item.name] = _parameter(item, kind, bound, texts.get(item.name, ""))
    first = [made.pop(name) for name in bound.arguments]
    return first + list(made.values())


def _parameter(item: Any, kind: _Kind, bound: Bound, text: str) -> click.Parameter:
    if item.name in bound.arguments:
        return click.Argument(
            [item.name],
            type=kind.type,
            required=item.required,
            nargs=-1 if kind.many else 1,
            shell_complete=completer(bound.verb, item.name),
        )
    flag = "--" + item.name.replace("_", "-")
    if kind.is_flag:
        return click.Option([flag, item.name], is_flag=True, default=None, help=text)
    is_plain = not item.required and isinstance(item.default, str | int | float) and item.default
    shown = f" [{item.default}]" if is_plain else ""
    return click.Option(
        [flag, item.name],
        type=kind.type,
        required=item.required,
        multiple=kind.many,
        help=(text + shown).strip(),
        shell_complete=completer(bound.verb, item.name),
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    type: click.ParamType[Any]
    many: bool = False
    is_flag: bool = False


class _Number(click.types.FloatParamType):
    """A number; Python reads ``nan`` and ``inf`` as numbers, which nothing here can be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number; give one such as 0.5.", param, ctx)
        return number


def _click_type(found: Any) -> _Kind | None:
    """Return how a field's type is given on a command line; None for structures."""
    from msgspec import inspect

    if isinstance(found, inspect.Metadata):
        return _click_type(found.type)
    if isinstance(found, inspect.UnionType):
        options = [kind for kind in found.types if not isinstance(kind, inspect.NoneType)]
        if len(options) == 1:
            return _click_type(options[0])
        return None
    plain: dict[type, _Kind] = {
        inspect.BoolType: _Kind(click.BOOL, is_flag=True),
        inspect.IntType: _Kind(click.INT),
        inspect.FloatType: _Kind(_Number()),
        inspect.StrType: _Kind(click.STRING),
        inspect.DateTimeType: _Kind(click.STRING),
    }
    if type(found) in plain:
        return plain[type(found)]
    if isinstance(found, inspect.EnumType):
        return _Kind(click.Choice([member.value for member in found.cls]))
    if isinstance(found, inspect.LiteralType):
        return _Kind(click.Choice([str(value) for value in found.values]))
    if isinstance(found, inspect.VarTupleType):
        inner = _click_type(found.item_type)
        return None if inner is None or inner.many else _Kind(inner.type, many=True)
    return None


@cache
def field_help(shape: type) -> dict[str, str]:
    """Return what a type's docstring says about its fields, by name."""
    texts: dict[str, str] = {}
    for parent in reversed(shape.__mro__):
        lines = (parent.__doc__ or "").splitlines()
        inside, last = False, ""
        for line in lines:
            stripped = line.strip()
            if stripped == "Attributes:":
                inside = True
            elif inside and stripped.endswith(":") and not line.startswith(" " * 8):
                inside = False
            elif inside and (match := _ATTRIBUTE.match(stripped)):
                last = match["name"]
                texts[last] = match["text"]
            elif inside and last and stripped:
                texts[last] += " " + stripped
    return texts
