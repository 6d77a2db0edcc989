"""Client side of a registration: uploads a trained model and performs `model.register`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from everloop.core.digest import Digest
from everloop.core.ids import Id
from everloop.core.manifest import FileEntry
from everloop.core.ports import BlobStore
from everloop.kernel.performer import Performer
from everloop.registry.examples import store_examples
from everloop.registry.formats import save_model
from everloop.registry.model import ModelVersion
from everloop.registry.signature import Signature
from everloop.registry.verbs import RegisterModel
from everloop.registry.versioning import Override

if TYPE_CHECKING:
    import pyarrow as pa


def upload_files(blobs: BlobStore, files: Mapping[str, bytes]) -> tuple[FileEntry, ...]:
    """Store the files of a model and return their entries, by path."""
    return tuple(
        FileEntry(path=path, digest=blobs.put(data), size_bytes=len(data))
        for path, data in sorted(files.items())
    )


def register(  # noqa: PLR0913 -- the fields of a registration, all but three keyword-only
    performer: Performer,
    name: str,
    model: object,
    *,
    signature: Signature,
    run: Id | None = None,
    dataset: Id | None = None,
    holdout: Id | None = None,
    examples: pa.Table | None = None,
    reference: Digest | None = None,
    params: Mapping[str, str] | None = None,
    description: str = "",
    bump: Override | None = None,
    bump_reason: str = "",
    request: str | None = None,
) -> ModelVersion:
    """Register a trained model; the same artifact again gives the same version.

    ``examples`` are rows like those it will be asked for, best of the holdout: they decide
    whether the next version is a minor or a patch version.

    Raises:
        EverloopError: what `save_model` and `model.register` refuse.
    """
    format_name, files = save_model(model)
    stored = store_examples(performer.blobs, signature, examples) if examples is not None else None
    ask = RegisterModel(
        name=name,
        files=upload_files(performer.blobs, files),
        format=format_name,
        signature=signature,
        description=description,
        run=run,
        dataset=dataset,
        holdout=holdout,
        reference=reference,
        examples=stored,
        params=dict(params or {}),
        bump=bump,
        bump_reason=bump_reason,
    )
    return performer.perform("model.register", ask, ModelVersion, request=request)
