"""Model versions in the hands of a client: loaded and verified by the server's policy."""

from __future__ import annotations

from everloop.kernel.performer import Performer
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.loaded import LoadedModel, load_version
from everloop.registry.model import ModelVersion
from everloop.registry.queries import AskPolicy, ResolveModel
from everloop.registry.verifying import Verification, verify_version


def load_model(performer: Performer, ref: str, *, as_of: str | None = None) -> LoadedModel:
    """Load the version that a ref names, from bytes that were verified on the way.

    Raises:
        NotFound: there is no such version.
        IntegrityError: its bytes are not those that were registered.
        UnsafeArtifact: the server's policy does not trust its format or a type in it.
        MissingExtra: its library is not installed.
    """
    return load_version(performer.blobs, *_found(performer, ref, as_of))


def verify_model(performer: Performer, ref: str) -> Verification:
    """Reread all bytes of the version that a ref names; say what holds and what does not.

    Raises:
        NotFound: there is no such version.
    """
    return verify_version(performer.blobs, *_found(performer, ref, None))


def _found(performer: Performer, ref: str, as_of: str | None) -> tuple[ModelVersion, LoadPolicy]:
    version = performer.perform("model.resolve", ResolveModel(ref=ref, as_of=as_of), ModelVersion)
    return version, performer.perform("model.policy", AskPolicy(), LoadPolicy)
