"""A masked name that is no input would mask nothing: it is refused before anything is served."""

from __future__ import annotations

import pytest

from everloop.core.errors import InvalidInput
from tests.unit.release.released import DOCUMENT, Released


def masking(released: Released, *names: str) -> None:
    demand: dict[str, object] = DOCUMENT["models"]["demand"]  # type: ignore[index]
    released.world.configure({"models": {"demand": {**demand, "log": {"masked": list(names)}}}})


def test_a_release_refuses_to_mask_what_the_model_does_not_take() -> None:
    released = Released()
    version = released.version(1.0)
    masking(released, "hour", "temprature")

    with pytest.raises(InvalidInput, match="'temprature' is no input of demand") as refusal:
        released.start(version)

    assert "log.mask_unknown" == refusal.value.code
    assert "Did you mean 'temperature'?" in refusal.value.hint
    assert released.deployment().live is None


def test_inputs_that_the_model_takes_may_be_masked() -> None:
    released = Released()
    version = released.version(1.0)
    masking(released, "hour", "temperature")

    assert version.id == released.start(version).release.candidate
