"""Fixtures for every test, and the rule for missing parts: skipped here, failed on CI."""

from __future__ import annotations

import os

import pytest

from tests.parts.found import PARTS

pytest_plugins = [
    "tests.parts.postgres",
    "tests.parts.browser",
    "tests.parts.s3",
    "tests.parts.mlflow",
    "tests.parts.triton",
    "tests.parts.validators",
    "tests.parts.prometheus",
]

FIXTURES = {
    "postgres_server": "needs_postgres",
    "chromium": "needs_chromium",
    "mlflow_client": "needs_mlflow",
    "triton_client": "needs_triton",
    "validators": "needs_validators",
    "prometheus": "needs_prometheus",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses a part's fixture, however deep, as needing that part."""
    for item in items:
        for fixture, marker in FIXTURES.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose part is missing; on CI fail it, for there the parts are promised."""
    for part in PARTS:
        lacking = part.lacks() if item.get_closest_marker(part.marker) else []
        if not lacking:
            continue
        reason = f"{part.name} is missing ({', '.join(lacking)}): run `make test` as root, or see \
CONTRIBUTING.md"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
