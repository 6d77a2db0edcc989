from __future__ import annotations

import pytest

from everloop.govern.markdown import NOT_STATED, block, code, escape, table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words, 1.5 - 2", "plain words, 1.5 - 2"),
        ("<script>alert(1)</script>", r"\<script\>alert\(1\)\</script\>"),
        ("[here](javascript:x)", r"\[here\]\(javascript:x\)"),
        ("![x](http://a)", r"\!\[x\]\(http\://a\)"),
        ("see https://evil.example", r"see https\://evil.example"),
        ("www.evil.example", r"www\.evil.example"),
        ("a@b.example", r"a\@b.example"),
        ("**bold** _it_ `code`", r"\*\*bold\*\* \_it\_ \`code\`"),
        ("one\n# two\r\n\n- three", r"one \# two - three"),
        ("a | b", r"a \| b"),
        ("&lt;b&gt;", r"\&lt;b\&gt;"),
        ("left\u202eright\u200b", "left right"),
    ],
)
def test_words_stay_words(text: str, expected: str) -> None:
    assert expected == escape(text)


@pytest.mark.parametrize("text", [None, "", "  \n", "\x00\u200b"])
def test_what_is_missing_is_said_to_be_missing(text: str | None) -> None:
    assert NOT_STATED == escape(text)


def test_code_cannot_be_left() -> None:
    assert "`ab c`" == code("a`b\n c")
    assert NOT_STATED == code(None)


def test_long_texts_are_cut() -> None:
    assert escape("x" * 5_000).endswith("x...")


def test_a_block_keeps_its_lines_and_cannot_be_left() -> None:
    assert ["    a", "    ```", "    # b"] == block("a\n```\r# b\n")


def test_a_table_has_a_head_and_rows() -> None:
    assert ["| a | b |", "| --- | --- |", "| 1 | 2 |"] == table(["a", "b"], [["1", "2"]])
