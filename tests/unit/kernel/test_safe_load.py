"""The one door for what can run code when it is read stays shut unless the policy opens it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from everloop.core.digest import content_digest
from everloop.core.errors import UnsafeArtifact
from everloop.kernel.safe_load import SAFE_FORMATS, LoadPolicy, load_pickle, require_format


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_is_refused_without_running_any_of_it(tmp_path: Path) -> None:
    data = pickle.dumps(Bomb(tmp_path / "boom"))

    with pytest.raises(UnsafeArtifact) as refused:
        load_pickle(data, LoadPolicy())

    assert "artifact.pickle_refused" == refused.value.code
    assert content_digest(data) == refused.value.context["digest"]
    assert not (tmp_path / "boom").exists()


def test_only_the_very_bytes_that_the_policy_names_are_read() -> None:
    data = pickle.dumps({"a": 1})
    policy = LoadPolicy(trusted_pickles=frozenset({content_digest(data)}))

    assert {"a": 1} == load_pickle(data, policy)
    with pytest.raises(UnsafeArtifact):
        load_pickle(data + b".", policy)


@pytest.mark.parametrize("name", sorted(SAFE_FORMATS))
def test_safe_formats_pass_by_default(name: str) -> None:
    require_format(LoadPolicy(), name)


@pytest.mark.parametrize("name", ["pickle", "joblib", "LightGBM", "", "lightgbm\n", "x" * 1000])
def test_any_other_format_is_refused(name: str) -> None:
    with pytest.raises(UnsafeArtifact) as refused:
        require_format(LoadPolicy(), name)

    assert len(str(refused.value)) < 300


def test_a_policy_can_be_narrower_than_the_default() -> None:
    with pytest.raises(UnsafeArtifact):
        require_format(LoadPolicy(formats=frozenset({"lightgbm"})), "sklearn")
