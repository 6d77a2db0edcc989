"""everloop.yaml: strict, and its errors name the line."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.app.config import parse_config
from everloop.core.errors import InvalidInput
from everloop.loop.model import LoopConfig


def test_what_is_left_out_has_its_default() -> None:
    config = parse_config("version: 1\nproject: demo\nmodels:\n  m: {}\n")

    assert 7300 == config.server.port
    assert LoopConfig() == config.models["m"].loop


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("version: 1\nprojcet: demo\n", 2, "project"),
        ("version: 1\nproject: demo\nmodels:\n  m:\n    gaet: {}\n", 5, "gate"),
        ("project: demo\nmodels:\n  a: {}\n  m:\n    loop:\n      max_retrains: x\n", 6, ""),
        ("version: 1\nproject: demo\nserver:\n  port: 70000\n", 4, "65535"),
        ("version: 1\nproject: demo\nproject: again\n", 3, "twice"),
        ("version: 1\nproject: &a demo\n", 2, "anchors"),
        ("version: 1\nproject: !!python/name:os.system x\n", 2, "tag"),
        ("version: 1\nproject: [\n", 3, ""),
        ("version: 2\nproject: demo\n", 1, "version"),
        ("version: 1\nproject: a b\n", 2, "project name"),
        ("version: 1\nproject: demo\nmodels:\n  ../m: {}\n", 4, "models"),
        ("- 1\n", 1, ""),
        ("project: demo\nmodels:\n  m:\n    loop:\n      enabled: true\n", 4, "module:function"),
        ("project: d\nmodels:\n  m:\n    loop: {enabled: true, pipeline: 'a:b'}\n", 4, "dataset"),
        ("project: demo\nmodels:\n  m:\n    release:\n      shares: [0.5, 0.1]\n", 4, "grow"),
        ("project: d\ndatasets:\n  d:\n    contract:\n      rows: {min: 2, max: 1}\n", 5, "min"),
        ("project: d\ndatasets:\n  d: {contract: {columns: {a: {min: 2, max: 1}}}}\n", 3, "a: min"),
        ("project: d\nregistry:\n  protected_aliases: [champion, '1.2']\n", 3, "a version"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_the_line(text: str, line: int, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_config(text)

    told = f"{refused.value.message} {refused.value.hint}"
    assert f"line {line}" in told
    assert words in told


@given(st.text(max_size=200))
def test_no_text_gives_anything_but_a_configuration_or_a_refusal(text: str) -> None:
    with suppress(InvalidInput):
        parse_config(text)
