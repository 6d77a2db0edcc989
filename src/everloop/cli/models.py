"""``everloop models``: models, their versions and aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from everloop.cli import output
from everloop.cli.binding import Bound, BoundGroup, VerbGroup
from everloop.cli.session import Session
from everloop.core.errors import InvalidInput

FORMATS = {".txt": ("lightgbm", "model.txt"), ".skops": ("sklearn", "model.skops")}


def _show_model(answer: Any) -> None:
    version = answer.version
    output.write_fields(
        {
            "model": version.name,
            "version": version.version,
            "number": version.number,
            "id": version.id,
            "aliases": list(answer.aliases),
            "format": version.format,
            "artifact": version.artifact,
            "task": version.signature.task,
            "target": version.target,
            "inputs": [field.name for field in version.signature.inputs],
            "run": version.run,
            "dataset_version": version.dataset_version,
            "holdout": version.holdout,
            "bump": version.bump,
            "bump_reason": version.bump_reason,
            "created_at": version.created_at,
            "params": version.params,
        }
    )


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
@click.option("--reason", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def register(session: Session, /, name: str, file: Path, **told: Any) -> int:
    """Register a model file: LightGBM's text (.txt) or skops (.skops).

    The same artifact again gives the version that is there.
    """
    from everloop.app.client import with_reason
    from everloop.app.registering import Registration, register_trained
    from everloop.core.ids import Id
    from everloop.pipeline.codecs import ModelFiles

    known = FORMATS.get(file.suffix)
    if known is None:
        raise InvalidInput(
            "model.type_unsupported",
            f"{file.name[:80]!r} is neither .txt nor .skops.",
            hint="Save a LightGBM model as text, or a scikit-learn one with skops.",
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
        ),
        ModelFiles(known[0], {known[1]: file.read_bytes()}),
    )
    if told["as_json"]:
        output.write_json(version)
    else:
        output.write_clean(f"{version.name}@{version.version} {version.artifact}")
    return 0


GROUP = VerbGroup(
    "models",
    BoundGroup(
        help="Models: immutable versions, and the aliases that point at them.",
        bound={
            "list": Bound(
                "model.list", columns=("name", "versions", "latest", "production", "created_at")
            ),
            "versions": Bound(
                "model.versions",
                arguments=("name",),
                columns=("version", "number", "format", "created_at", "bump", "id"),
            ),
            "show": Bound("model.show", arguments=("ref",), show=_show_model),
            "alias": Bound("model.alias", arguments=("model", "alias", "version")),
            "history": Bound(
                "model.alias_history",
                arguments=("name",),
                columns=("when=move.when", "alias=move.alias", "version", "before", "why=move.why"),
            ),
        },
        written={"register": register},
    ),
)
COMMANDS = {"models": GROUP}
