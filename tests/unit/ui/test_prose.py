"""How Markdown of users becomes part of a page."""

from __future__ import annotations

import pytest

from everloop.ui.prose import markdown


def test_markdown_becomes_lists_tables_and_headings_below_those_of_the_page() -> None:
    text = markdown("# Title\n\n- one **bold**\n\n| a | b |\n|---|---|\n| 1 | 2 |")

    assert "<h3>Title</h3>" in text
    assert "<li>one <strong>bold</strong></li>" in text
    assert "<td>2</td>" in text


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a <img src=x onerror=alert(1)> b",
        "<div onclick=x>\n\nblock\n\n</div>",
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](https://tracker.example/pixel.png)",
        "<javascript:alert(1)>",
        "[x](vbscript:x)",
        '[x](/a"onmouseover="x)',
        "```\n<script>alert(1)</script>\n```",
    ],
)
def test_nothing_in_markdown_becomes_a_script_or_fetches_anything(text: str) -> None:
    made = markdown(text)

    for bad in (
        "<script",
        "<img",
        "<div",
        'href="javascript',
        'href="data',
        'href="vb',
        '"onmouse',
    ):
        assert bad not in made


def test_a_link_tells_its_target_nothing_of_the_page() -> None:
    assert 'rel="noreferrer"' in markdown("[docs](https://docs.example)")


def test_deep_markdown_ends() -> None:
    assert markdown(">" * 5_000 + "x")
    assert markdown("[" * 5_000)
