"""Searching logged models as MLflow's clients ask: its filter, its order, datasets of metrics.

Logged models of the experiments that are named are judged one by one, the newest first; a filter by
the run that wrote them looks at that run's alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import msgspec

from everloop.core.errors import InvalidInput
from everloop.core.filter.matching import is_like
from everloop.core.filter.parser import parse_filter
from everloop.core.filter.tree import (
    Both,
    Comparison,
    Either,
    How,
    Name,
    Negated,
    Node,
    Number,
    Text,
)
from everloop.interop.mlflow.routing import Context
from everloop.interop.mlflow.words import experiment_id, to_ms
from everloop.registry.logged import LoggedMetric, LoggedStatus
from everloop.registry.logged_queries import (
    MOST_MODELS,
    ListLoggedModels,
    LoggedModelList,
    LoggedModelView,
)

MOST_RESULTS: Final = 1_000
DEFAULT_RESULTS: Final = 100
Value: TypeAlias = "str | float | None"
_SYNONYMS: Final = {
    "creation_time": "creation_timestamp",
    "creation_timestamp_ms": "creation_timestamp",
    "last_updated_time": "last_updated_timestamp",
    "last_updated_timestamp_ms": "last_updated_timestamp",
    "run_id": "source_run_id",
}
_SPACES: Final = {
    "metric": "metrics",
    "metrics": "metrics",
    "param": "params",
    "params": "params",
    "parameter": "params",
    "parameters": "params",
    "tag": "tags",
    "tags": "tags",
}
_SELVES: Final = frozenset({"attribute", "attributes", "attr", "model"})


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset on which metrics must have been measured; any digest when it is empty."""

    dataset_name: str = ""
    dataset_digest: str = ""


class OrderBy(msgspec.Struct, frozen=True, kw_only=True):
    """One key of the order: an attribute, or ``metrics.<key>`` on a dataset."""

    field_name: str = ""
    ascending: bool = True
    dataset_name: str = ""
    dataset_digest: str = ""


class SearchLoggedModels(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``logged-models/search``."""

    experiment_ids: tuple[str, ...] = ()
    filter: str = ""
    datasets: tuple[Dataset, ...] = ()
    max_results: int = DEFAULT_RESULTS
    order_by: tuple[OrderBy, ...] = ()
    page_token: str = ""


def select_models(
    context: Context, ask: SearchLoggedModels
) -> tuple[list[LoggedModelView], str | None]:
    """Return one page of logged models, and the token of the next.

    Raises:
        InvalidInput: the filter, the order, the page token or a limit is wrong.
    """
    limit = ask.max_results or DEFAULT_RESULTS
    if not 1 <= limit <= MOST_RESULTS:
        raise InvalidInput(
            "input.invalid",
            f"max_results is {limit}, not 1 to {MOST_RESULTS}.",
            hint="Ask for the next page with its token.",
        )
    if any(not dataset.dataset_name for dataset in ask.datasets):
        raise InvalidInput(
            "input.invalid", "A dataset has no dataset_name.", hint="Name every dataset."
        )
    node = parse_filter(ask.filter)
    for test in _tests(node):
        _address(test.name)
    found = [view for view in _all(context, ask, node) if _matches(view, node, ask.datasets)]
    _sort(found, ask.order_by)
    start = _place_after(found, ask.page_token)
    page = found[start : start + limit]
    more = page[-1].model.id if start + limit < len(found) else None
    return page, more


def _all(context: Context, ask: SearchLoggedModels, node: Node) -> Iterator[LoggedModelView]:
    experiments = tuple(experiment_id(context, key) for key in ask.experiment_ids)
    if not experiments:
        return
    wanted = ListLoggedModels(experiments=experiments, run=_run_asked(node), limit=MOST_MODELS)
    while True:
        page = context.perform("logged_model.list", wanted, LoggedModelList)
        yield from page.items
        if page.next is None:
            return
        wanted = msgspec.structs.replace(wanted, after=page.next)


def _run_asked(node: Node) -> str | None:
    """Return the run that every match must come from, if the filter says one."""
    parts = node.parts if isinstance(node, Both) else (node,)
    for part in parts:
        if isinstance(part, Comparison) and part.how is How.EQ and not part.negated:
            value = part.values[0]
            if _address(part.name) == ("attributes", "source_run_id") and isinstance(value, Text):
                return value.value
    return None


def _tests(node: Node) -> Iterator[Comparison]:
    if isinstance(node, Comparison):
        yield node
    elif isinstance(node, Negated):
        yield from _tests(node.part)
    else:
        for part in node.parts:
            yield from _tests(part)


def _address(name: Name) -> tuple[str, str]:
    first, *rest = name.parts
    key = ".".join(rest)
    if rest and first in _SPACES:
        return _SPACES[first], key
    if rest and first in _SELVES:
        first, rest = key, []
    first = _SYNONYMS.get(first, first)
    if rest or first not in _ATTRIBUTES:
        raise InvalidInput(
            "filter.invalid",
            f"A logged model has no {'.'.join(name.parts)[:60]!r}.",
            hint=f"Use metrics.x, params.x, tags.x or one of: {', '.join(sorted(_ATTRIBUTES))}.",
        )
    return "attributes", first


_STATUS: Final = {
    LoggedStatus.PENDING: "PENDING",
    LoggedStatus.READY: "READY",
    LoggedStatus.FAILED: "FAILED",
}
_ATTRIBUTES: Final[dict[str, Callable[[LoggedModelView], Value]]] = {
    "name": lambda view: view.model.name,
    "model_id": lambda view: "m-" + view.model.id.replace("-", ""),
    "model_type": lambda view: view.model.kind or None,
    "status": lambda view: _STATUS[view.model.status],
    "source_run_id": lambda view: view.model.run,
    "creation_timestamp": lambda view: float(to_ms(view.model.created_at)),
    "last_updated_timestamp": lambda view: float(to_ms(view.model.updated_at)),
}


def _matches(view: LoggedModelView, node: Node, datasets: tuple[Dataset, ...]) -> bool:
    if datasets and not any(_is_on(metric, datasets) for metric in view.metrics):
        return False
    return _holds(view, node, datasets)


def _holds(view: LoggedModelView, node: Node, datasets: tuple[Dataset, ...]) -> bool:
    if isinstance(node, Comparison):
        return _passes(node, _values(view, *_address(node.name), datasets))
    if isinstance(node, Negated):
        return not _holds(view, node.part, datasets)
    judge = any if isinstance(node, Either) else all
    return judge(_holds(view, part, datasets) for part in node.parts)


def _values(
    view: LoggedModelView, space: str, key: str, datasets: tuple[Dataset, ...]
) -> list[Value]:
    if space == "attributes":
        return [_ATTRIBUTES[key](view)]
    if space == "params":
        return [view.model.params.get(key)]
    if space == "tags":
        return [view.model.tags.get(key)]
    return [
        float(metric.text)
        for metric in view.metrics
        if metric.key == key and (not datasets or _is_on(metric, datasets))
    ]


def _is_on(metric: LoggedMetric, datasets: tuple[Dataset, ...]) -> bool:
    return any(
        metric.dataset_name == dataset.dataset_name
        and dataset.dataset_digest in {"", metric.dataset_digest}
        for dataset in datasets
    )


def _passes(test: Comparison, values: list[Value]) -> bool:
    known = [value for value in values if value is not None]
    if test.how is How.NULL:
        return bool(known) if test.negated else not known
    if test.how is How.NAN:
        has = any(isinstance(value, float) and math.isnan(value) for value in known)
        return has != test.negated
    # As with MLflow, a comparison of what is not there never holds.
    return any(_compares(test, value) != test.negated for value in known)


def _compares(test: Comparison, value: str | float) -> bool:
    wanted = [_plain(literal, value) for literal in test.values]
    if test.how is How.IN:
        return value in wanted
    if test.how is How.BETWEEN:
        return bool(wanted[0] <= value <= wanted[1])  # type: ignore[operator]
    if test.how in {How.LIKE, How.ILIKE}:
        return is_like(str(value), str(wanted[0]), folded=test.how is How.ILIKE)
    return _COMPARE[test.how](value, wanted[0])


_COMPARE: Final[dict[How, Callable[..., bool]]] = {
    How.EQ: lambda one, other: one == other,
    How.NE: lambda one, other: one != other,
    How.LT: lambda one, other: one < other,
    How.LE: lambda one, other: one <= other,
    How.GT: lambda one, other: one > other,
    How.GE: lambda one, other: one >= other,
}


def _plain(literal: object, beside: str | float) -> str | float:
    """Return a literal as the kind of value that it is compared with."""
    if isinstance(literal, Text):
        if isinstance(beside, str):
            return literal.value
        try:
            return float(literal.value)
        except ValueError as error:
            raise _kind_wrong(literal.value) from error
    if isinstance(literal, Number):
        return str(literal.value) if isinstance(beside, str) else float(literal.value)
    raise _kind_wrong("now")


def _kind_wrong(text: str) -> InvalidInput:
    return InvalidInput(
        "filter.invalid",
        f"{text[:40]!r} is not what this is compared with.",
        hint="Times are milliseconds since 1970, metrics are numbers.",
    )


def _sort(found: list[LoggedModelView], order: tuple[OrderBy, ...]) -> None:
    found.sort(key=lambda view: view.model.id)
    found.sort(key=lambda view: view.model.created_at, reverse=True)
    for key in reversed(order):
        space, name = _address(Name(tuple(key.field_name.strip().split(".", 1))))
        if space not in {"metrics", "attributes"}:
            raise InvalidInput(
                "order.invalid",
                f"Logged models are not ordered by {key.field_name[:60]!r}.",
                hint="Order by an attribute or by metrics.x.",
            )
        datasets = (
            (Dataset(dataset_name=key.dataset_name, dataset_digest=key.dataset_digest),)
            if key.dataset_name
            else ()
        )
        ranked = [(_rank(view, space, name, datasets), view) for view in found]
        known = [pair for pair in ranked if pair[0] is not None]
        known.sort(key=lambda pair: pair[0], reverse=not key.ascending)  # type: ignore[arg-type,return-value]
        found[:] = [view for _, view in known] + [view for rank, view in ranked if rank is None]


def _rank(view: LoggedModelView, space: str, name: str, datasets: tuple[Dataset, ...]) -> Value:
    values = [value for value in _values(view, space, name, datasets) if value is not None]
    values = [v for v in values if not (isinstance(v, float) and math.isnan(v))]
    return values[0] if values else None


def _place_after(found: list[LoggedModelView], token: str) -> int:
    if not token:
        return 0
    for place, view in enumerate(found):
        if view.model.id == token:
            return place + 1
    raise InvalidInput(
        "page.invalid", "The page token belongs to no page.", hint="Begin at the first page."
    )
