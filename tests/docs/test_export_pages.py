"""Every export that the pages on serving elsewhere show works, on a model of another name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.story.test_export import Shop, shop

__all__ = ["shop"]  # the fixture

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "how-to").glob("serve-*.md"))
COMMAND = re.compile(r"^\$ everloop (export .*)$", re.MULTILINE)


def test_there_is_a_page_for_every_platform() -> None:
    assert 9 == len(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_export_that_a_page_shows_works(shop: Shop, page: Path) -> None:
    commands = COMMAND.findall(page.read_text(encoding="utf-8"))

    assert commands
    for command in commands:
        told = command.replace("model:credit@1.4.0", "model:demand@1")
        shop.must(*shlex.split(told), "--force")
