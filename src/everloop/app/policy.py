"""What this server loads: a file that its admin keeps, else the safe formats alone."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from everloop.app.home import Home
from everloop.core.errors import InvalidInput
from everloop.kernel.safe_load import LoadPolicy
from everloop.registry.loaders import FORMATS

POLICY_VARIABLE = "EVERLOOP_POLICY"
POLICY_NAME = "policy.yaml"


def load_policy(home: Home) -> LoadPolicy:
    """Return the policy in the file that ``EVERLOOP_POLICY`` names, else in the home folder's.

    Raises:
        InvalidInput: ``policy.invalid``: the file can't be read, or names an unknown format.
    """
    named = os.environ.get(POLICY_VARIABLE)
    path = Path(named) if named else home.path / POLICY_NAME
    if not named and not path.exists():
        return LoadPolicy()
    try:
        policy = msgspec.yaml.decode(path.read_bytes(), type=LoadPolicy)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise _invalid(path, str(error)) from error
    unknown = sorted(policy.formats - set(FORMATS))
    if unknown:
        raise _invalid(path, f"{unknown[0][:40]!r} is no format; there are {', '.join(FORMATS)}")
    return policy


def _invalid(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        "policy.invalid",
        f"The policy of loading in {path.name} is unusable: {why[:300]}.",
        hint="Write formats, trusted_types and weak_isolation as docs/explanation/model-formats.md "
        "shows, or remove the file.",
    )
