from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit import World, world
from tests.unit.kernel.noted import Between, declared_for_a_test


@pytest.fixture
def between() -> Iterator[Between]:
    with declared_for_a_test() as steps:
        yield steps


@pytest.fixture
def place(between: Between) -> World:
    """A world that knows the verbs of these tests."""
    return world()
