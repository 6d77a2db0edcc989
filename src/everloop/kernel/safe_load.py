"""The one door for formats that can run code when they are read.

Safe formats never come here. Whether anything passes is the server's policy, never a property of
the artifact: an extension, a content type or a list of types inside the file counts for nothing.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable

import msgspec

from everloop.core.digest import Digest, content_digest
from everloop.core.errors import UnsafeArtifact

SAFE_FORMATS = frozenset({"lightgbm", "sklearn"})


class LoadPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What this server loads.

    Attributes:
        formats: Names of trusted model formats.
        trusted_types: Fully qualified types that skops may rebuild beyond its own safe list.
        trusted_pickles: Digests of single pickles that an admin vouches for; normally none.
    """

    formats: frozenset[str] = SAFE_FORMATS
    trusted_types: tuple[str, ...] = ()
    trusted_pickles: frozenset[Digest] = frozenset()


def require_format(policy: LoadPolicy, format_name: str) -> None:
    """Refuse a model format outside the policy.

    Raises:
        UnsafeArtifact: ``artifact.format_refused``.
    """
    if format_name not in policy.formats:
        raise UnsafeArtifact(
            "artifact.format_refused",
            f"This server does not load the format {format_name[:40]!r}.",
            hint=f"Save the model as one of: {', '.join(sorted(policy.formats))}.",
        )


def load_pickle(data: bytes, policy: LoadPolicy) -> object:
    """Unpickle bytes whose digest the policy names.

    Raises:
        UnsafeArtifact: ``artifact.pickle_refused`` for any other bytes.
    """
    digest = content_digest(data)
    if digest not in policy.trusted_pickles:
        raise UnsafeArtifact(
            "artifact.pickle_refused",
            "A pickle can run any code when it is read, and this one is not trusted.",
            hint=f"Save in a safe format, or have an admin trust {digest} in the server's policy.",
            context={"digest": digest},
        )
    load: Callable[[], object] = pickle.Unpickler(io.BytesIO(data)).load
    return load()
