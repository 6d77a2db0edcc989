"""Which model formats, and which types inside them, this server loads.

What may be loaded is the server's policy, never a property of the artifact: an extension, a content
type or a list of types inside the file counts for nothing. No format that Everloop reads unpickles
anything; there is no door for pickles at all.
"""

from __future__ import annotations

import msgspec

from everloop.core.errors import UnsafeArtifact

SAFE_FORMATS = frozenset({"lightgbm", "sklearn", "xgboost", "onnx", "torch"})


class LoadPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this server loads.

    Attributes:
        formats: Names of trusted model formats. ``pyfunc``, which runs code out of the artifact
            in a process of its own, is trusted only where it is named here.
        weak_isolation: Whether a ``pyfunc`` may run where this machine can't keep it from the
            network, from files or from other processes.
        trusted_types: Fully qualified types that skops may rebuild beyond its own safe list.
    """

    formats: frozenset[str] = SAFE_FORMATS
    trusted_types: tuple[str, ...] = ()
    weak_isolation: bool = False


def require_format(policy: LoadPolicy, format_name: str) -> None:
    """Refuse a model format outside the policy.

    Raises:
        UnsafeArtifact: ``artifact.format_refused``.
    """
    if format_name not in policy.formats:
        raise UnsafeArtifact(
            "artifact.format_refused",
            f"This server does not load the format {format_name[:40]!r}.",
            hint=f"Save the model as one of: {', '.join(sorted(policy.formats))}; or an admin lets "
            "the policy of the server (policy.yaml) name the format.",
        )
