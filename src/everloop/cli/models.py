"""``everloop models``: models, their versions and aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from everloop.cli import output
from everloop.cli.aliases import alias
from everloop.cli.answering import load, predict, verify, verify_bundle
from everloop.cli.binding import Bound, BoundGroup, VerbGroup, confirm
from everloop.cli.session import Session
from everloop.cli.tagging import parse_tags
from everloop.core.errors import InvalidInput

MOST_CATEGORIES = 5
FORMATS = {
    ".txt": ("lightgbm", "model.txt"),
    ".skops": ("sklearn", "model.skops"),
    ".ubj": ("xgboost", "model.ubj"),
    ".json": ("xgboost", "model.json"),
    ".onnx": ("onnx", "model.onnx"),
}


def _show_model(answer: Any) -> None:
    version, notes = answer.version, answer.notes
    output.write_fields(
        {
            "model": version.name,
            "version": version.version,
            "number": version.number,
            "id": version.id,
            "aliases": list(answer.aliases),
            "stage": notes.stage if notes and notes.stage != "None" else None,
            "notes": notes.description if notes else None,
            "tags": notes.tags if notes else None,
            "deleted_at": answer.model.deleted_at or (notes.deleted_at if notes else None),
            "format": version.format,
            "artifact": version.artifact,
            "task": version.signature.task,
            "target": version.target,
            "inputs": [_describe(field) for field in version.signature.inputs],
            "answers": [_describe(field) for field in _answers(version.signature)],
            "run": version.run,
            "dataset_version": version.dataset_version,
            "holdout": version.holdout,
            "bump": version.bump,
            "bump_reason": version.bump_reason,
            "waiver": version.waiver or None,
            "environment": version.environment,
            "created_at": version.created_at,
            "params": version.params,
            "description": answer.model.description,
            "owner": answer.model.owner,
            "licence": answer.model.licence,
            "intended_use": answer.model.intended_use,
            "model_tags": answer.model.tags,
            "source": version.source or None,
        }
    )


def _tell_model(answer: Any) -> None:
    output.write_clean(f"model {answer.name}, last version number {answer.last_number}")


def _answers(signature: Any) -> tuple[Any, ...]:
    return tuple(signature.outputs) or (signature.output,)


def _describe(field: Any) -> str:
    """Return a field of a signature in a line: name, type, and what was seen in training."""
    cells = "x".join(map(str, field.shape))
    told = f"{field.name} ({field.dtype}{f' of {cells}' if cells else ''}"
    told += ", nullable" if field.nullable else ""
    if field.categories is not None:
        shown = ", ".join(field.categories[:MOST_CATEGORIES])
        more = len(field.categories) - MOST_CATEGORIES
        told += f": {shown}" + (f" and {more} more" if more > 0 else "")
    elif field.minimum is not None and field.maximum is not None:
        told += f", {field.minimum:.6g} to {field.maximum:.6g}"
    return told + ")"


@click.command("register")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--training", required=True, help="Dataset version it was trained on, as bike@3.")
@click.option("--holdout", help="Dataset version kept from training; the gate needs it.")
@click.option("--target", required=True, help="Column that it predicts.")
@click.option(
    "--task",
    type=click.Choice(["regression", "classification"]),
    help="As the model itself says, else as everloop.yaml says, when left out.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    help="Column that it takes, in its order; as the model names them when left out.",
)
@click.option("--run", help="Id of the run that trained it.")
@click.option(
    "--bump",
    type=click.Choice(["major", "minor", "patch"]),
    help="The part of its version number to raise, against the rule; needs --reason.",
)
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def register(session: Session, /, name: str, file: Path, **told: Any) -> int:
    """Register a model file: LightGBM's text (.txt), skops, XGBoost's .ubj or .json, or ONNX.

    The same artifact again gives the version that is there.
    """
    from everloop.app.client import with_reason
    from everloop.app.registering import Registration, register_trained
    from everloop.core.ids import Id
    from everloop.pipeline.codecs import ModelFiles

    if told["bump"] and not (told["reason"] or "").strip():
        raise InvalidInput(
            "version.reason_missing",
            "A version bump by hand needs a reason.",
            hint="Say with --reason why the rule does not fit.",
        )
    known = FORMATS.get(file.suffix)
    if known is None:
        raise InvalidInput(
            "model.type_unsupported",
            f"{file.name[:80]!r} is none of {', '.join(FORMATS)}.",
            hint="Register a Python function from Python: everloop.register(..., waiver=...)."
            if file.suffix == ".py"
            else "Save a LightGBM model as text, a scikit-learn one with skops, XGBoost's as .ubj.",
        )
    version = register_trained(
        with_reason(session.client, told["reason"]),
        Registration(
            name=name,
            training=told["training"],
            holdout=told["holdout"],
            target=told["target"],
            task=told["task"],
            inputs=told["inputs"],
            run=Id(told["run"]) if told["run"] else None,
            bump=told["bump"],
            bump_reason=(told["reason"] or "") if told["bump"] else "",
        ),
        ModelFiles(known[0], {known[1]: file.read_bytes()}),
    )
    if told["as_json"]:
        output.write_json(version)
    else:
        output.write_clean(f"{version.name}@{version.version} {version.artifact}")
        output.write_clean(f"{version.bump}: {version.bump_reason}")
    return 0


def _is_version(ref: str) -> bool:
    from everloop.core.ids import is_id

    bare = ref.removeprefix("model_version:")
    return "@" in ref or is_id(bare)


@click.command("tag")
@click.argument("ref")
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", multiple=True, help="Key of a tag to take away.")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def tag(session: Session, /, ref: str, tags: tuple[str, ...], **told: Any) -> int:
    """Set tags of a model (bike) or of a version (bike@3), or take them away."""
    given = {"tags": parse_tags(tags), "untag": told["remove"]}
    return _update(session, ref, given, reason=told["reason"], as_json=told["as_json"])


@click.command("describe")
@click.argument("ref")
@click.argument("description", required=False)
@click.option("--owner", help="Who answers for the model.")
@click.option("--licence", help="Its licence, best as an SPDX expression.")
@click.option("--intended-use", help="What it is for, and what it is not for.")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def describe(session: Session, /, ref: str, **told: Any) -> int:
    """Say what a model (bike) or a version (bike@3) is; owner and the like belong to models."""
    reason, as_json = told.pop("reason"), told.pop("as_json")
    given = {name: value for name, value in told.items() if value is not None}
    return _update(session, ref, given, reason=reason, as_json=as_json)


def _update(
    session: Session, ref: str, given: dict[str, Any], *, reason: str | None, as_json: bool
) -> int:
    from everloop.registry.lifecycle import UpdateModel, UpdateVersion
    from everloop.registry.model import Model, VersionNotes

    answer: Any
    if _is_version(ref):
        misplaced = sorted(set(given) - {"description", "tags", "untag"})
        if misplaced:
            raise InvalidInput(
                "input.invalid",
                f"{ref[:80]} is a version; its model has the {misplaced[0].replace('_', ' ')}.",
                hint=f"Use the model's name: {ref.partition('@')[0]}.",
            )
        ask = UpdateVersion(version=ref, **given)
        answer = session.perform("version.update", ask, VersionNotes, reason=reason)
    else:
        name = ref.removeprefix("model:")
        told = UpdateModel(name=name, **given)
        answer = session.perform("model.update", told, Model, reason=reason)
    (output.write_json if as_json else output.write_fields)(answer)
    return 0


@click.command("delete")
@click.argument("ref")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def delete(session: Session, /, ref: str, **told: Any) -> int:
    """Put a model (bike) or a version (bike@3) into the trash.

    Whatever answers in production or is under a release is refused. Numbers are never reused.
    """
    if not told["yes"]:
        confirm(f"Put {ref} into the trash?")
    return _move(session, ref, "delete", reason=told["reason"], as_json=told["as_json"])


@click.command("restore")
@click.argument("ref")
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def restore(session: Session, /, ref: str, **told: Any) -> int:
    """Take a model (bike) or a version (bike@3) out of the trash."""
    return _move(session, ref, "restore", reason=told["reason"], as_json=told["as_json"])


def _move(session: Session, ref: str, how: str, *, reason: str | None, as_json: bool) -> int:
    from everloop.registry.lifecycle import NameModel, NameVersion
    from everloop.registry.model import Model, VersionNotes

    answer: Any
    if _is_version(ref):
        asked = NameVersion(version=ref)
        answer = session.perform(f"version.{how}", asked, VersionNotes, reason=reason)
    else:
        named = NameModel(name=ref.removeprefix("model:"))
        answer = session.perform(f"model.{how}", named, Model, reason=reason)
    if as_json:
        output.write_json(answer)
    else:
        where = "in the trash" if answer.deleted_at else "in use"
        output.write_clean(f"{ref} is {where}")
    return 0


GROUP = VerbGroup(
    "models",
    BoundGroup(
        help="Models: immutable versions, and the aliases that point at them.",
        bound={
            "list": Bound(
                "model.search", columns=("name", "versions", "latest", "production", "created_at")
            ),
            "versions": Bound(
                "version.search",
                arguments=("name",),
                columns=(
                    "name=version.name",
                    "version=version.version",
                    "number=version.number",
                    "aliases",
                    "format=version.format",
                    "created_at=version.created_at",
                    "bump=version.bump",
                    "id=version.id",
                ),
            ),
            "show": Bound("model.show", arguments=("ref",), show=_show_model),
            "history": Bound(
                "model.alias_history",
                arguments=("name",),
                columns=(
                    "when=move.when",
                    "alias=move.alias",
                    "version",
                    "before",
                    "who",
                    "why=move.why",
                ),
            ),
            "at": Bound(
                "model.aliases_at",
                arguments=("name", "alias"),
                columns=("alias", "version", "number", "before", "since", "until", "who", "why"),
            ),
            "create": Bound("model.create", arguments=("name",), show=_tell_model),
            "rename": Bound("model.rename", arguments=("name", "to"), show=_tell_model),
            "stage": Bound("version.stage", arguments=("version", "stage")),
        },
        written={
            "alias": alias,
            "register": register,
            "load": load,
            "verify": verify,
            "verify-bundle": verify_bundle,
            "predict": predict,
            "tag": tag,
            "describe": describe,
            "delete": delete,
            "restore": restore,
        },
    ),
)
COMMANDS = {"models": GROUP}
