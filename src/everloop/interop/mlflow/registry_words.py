"""Our models and versions as MLflow shows them, and its filters over them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from everloop.core.errors import InvalidInput, NotFound
from everloop.core.filter.parser import parse_filter
from everloop.core.filter.printer import print_filter
from everloop.core.filter.tree import EVERYTHING, Both, Comparison, How, Node
from everloop.interop.mlflow.routing import Context, Json
from everloop.interop.mlflow.words import pairs_of, to_ms
from everloop.registry.overview import (
    ShowModels,
    ShowVersions,
    WholeModel,
    WholeModels,
    WholeVersion,
    WholeVersions,
)

RUN_LINK: Final = "mlflow.runLink"
IS_PROMPT: Final = "mlflow.prompt.is_prompt"
PAGE: Final = 1_000
_NUMBER: Final = re.compile(r"\d{1,9}")
STAGES: Final = {stage.lower(): stage for stage in ("None", "Staging", "Production", "Archived")}


def version_uri(name: str, number: int) -> str:
    """Return where a client finds the sealed files of a version: through this server."""
    return f"mlflow-artifacts:/registry/{name}/{number}"


def read_number(text: str) -> int:
    """Read the number of a version, which MLflow sends as text.

    Raises:
        InvalidInput: ``version.number_invalid``.
    """
    if _NUMBER.fullmatch(text) is None:
        raise InvalidInput(
            "version.number_invalid",
            f"{text[:40]!r} is not the number of a version.",
            hint="Send a whole number, such as 3.",
        )
    return int(text)


def read_stage(text: str) -> str:
    """Read the name of a stage, in any case.

    Raises:
        InvalidInput: ``stage.unknown``.
    """
    found = STAGES.get(text.lower())
    if found is None:
        raise InvalidInput(
            "stage.unknown",
            f"{text[:40]!r} is no stage.",
            hint=f"Use one of {', '.join(STAGES.values())}.",
        )
    return found


def to_version(whole: WholeVersion) -> Json:
    """Return a version as MLflow shows it."""
    version, notes = whole.version, whole.notes
    shown: Json = {
        "name": version.name,
        "version": str(version.number),
        "creation_timestamp": to_ms(version.created_at),
        "last_updated_timestamp": to_ms(notes.updated_at),
        "user_id": whole.created_by,
        "current_stage": notes.stage,
        "description": notes.description,
        "source": version.source or version_uri(version.name, version.number),
        "run_id": version.run or "",
        "status": "READY",
        "tags": pairs_of(notes.tags),
        "aliases": list(whole.aliases),
    }
    if RUN_LINK in notes.tags:
        shown["run_link"] = notes.tags[RUN_LINK]
    if version.logged_model is not None:
        shown["model_id"] = "m-" + version.logged_model.replace("-", "")
    return shown


def to_model(whole: WholeModel) -> Json:
    """Return a model as MLflow shows it."""
    model = whole.model
    return {
        "name": model.name,
        "creation_timestamp": to_ms(model.created_at),
        "last_updated_timestamp": to_ms(model.updated_at or model.created_at),
        "description": model.description,
        "latest_versions": [to_version(version) for version in whole.latest],
        "tags": pairs_of(model.tags),
        "aliases": [
            {"alias": alias, "version": str(number)}
            for alias, number in sorted(whole.aliases.items())
        ],
    }


def get_whole_model(context: Context, name: str) -> WholeModel:
    """Return a model by its name.

    Raises:
        InvalidInput: ``input.invalid`` without a name.
        NotFound: ``model.not_found``.
    """
    ask = ShowModels(names=(require_name(name),))
    return context.perform("model.whole", ask, WholeModels).items[0]


def get_whole_version(context: Context, name: str, number: str) -> WholeVersion:
    """Return a version by its model's name and its number.

    Raises:
        InvalidInput: a name or a number is missing or wrong.
        NotFound: ``model.not_found`` or ``model_version.not_found``.
    """
    ask = ShowVersions(model=require_name(name), numbers=(read_number(number),))
    found = context.perform("version.whole", ask, WholeVersions).items
    if not found:
        raise NotFound(
            "model_version.not_found",
            f"Model {name[:60]!r} has no version {number}.",
            hint="Search its versions.",
        )
    return found[0]


def require_name(name: str) -> str:
    """Return the name of a model that a request must state.

    Raises:
        InvalidInput: ``input.invalid``.
    """
    if not name:
        raise InvalidInput(
            "input.invalid", "The name of the model is missing.", hint="Send it as 'name'."
        )
    return name


def read_filter(text: str) -> str | None:
    """Return a filter without its test for prompts, None when it asks for prompts alone.

    Every client leaves prompts out with it; there are none here, so that a test that a model is
    no prompt holds for every model, also for one without that tag.
    """
    node = _without_prompts(parse_filter(text))
    return None if node is None else print_filter(node)


def _without_prompts(node: Node) -> Node | None:
    if isinstance(node, Comparison) and node.name.parts[-1] == IS_PROMPT:
        return EVERYTHING if (node.how is How.NE) != node.negated else None
    if isinstance(node, Both):
        parts = [_without_prompts(part) for part in node.parts]
        if any(part is None for part in parts):
            return None
        kept = [part for part in parts if part is not None and part != EVERYTHING]
        return kept[0] if len(kept) == 1 else Both(tuple(kept))
    return node


def collect(
    limit: int, token: str, fetch: Callable[[int, str | None], tuple[Sequence[Any], str | None]]
) -> tuple[list[Any], str | None]:
    """Return as many rows as a client asks for, of a search that answers in smaller pages."""
    rows: list[Any] = []
    after: str | None = token or None
    while True:
        page, after = fetch(min(PAGE, limit - len(rows)), after)
        rows += page
        if after is None or len(rows) >= limit:
            return rows, after


def read_limit(limit: int, most: int, usual: int) -> int:
    """Return how many rows are asked for.

    Raises:
        InvalidInput: ``input.invalid``.
    """
    if limit == 0:
        return usual
    if not 1 <= limit <= most:
        raise InvalidInput(
            "input.invalid",
            f"max_results must be at most {most}, and it is {limit}.",
            hint="Ask for the next page with its token.",
        )
    return limit
