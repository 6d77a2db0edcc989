"""Only formats that the server's policy names are loaded, whatever an artifact says of itself."""

from __future__ import annotations

import pytest

from everloop.core.errors import UnsafeArtifact
from everloop.kernel.safe_load import SAFE_FORMATS, LoadPolicy, require_format


@pytest.mark.parametrize("name", sorted(SAFE_FORMATS))
def test_safe_formats_pass_by_default(name: str) -> None:
    require_format(LoadPolicy(), name)


@pytest.mark.parametrize(
    "name", ["pickle", "joblib", "pyfunc", "LightGBM", "", "lightgbm\n", "x" * 1000]
)
def test_any_other_format_is_refused(name: str) -> None:
    with pytest.raises(UnsafeArtifact) as refused:
        require_format(LoadPolicy(), name)

    assert len(str(refused.value)) < 300


def test_a_policy_can_be_narrower_than_the_default() -> None:
    with pytest.raises(UnsafeArtifact):
        require_format(LoadPolicy(formats=frozenset({"lightgbm"})), "sklearn")
