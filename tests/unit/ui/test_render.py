"""How values are written on pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from importlib import resources
from pathlib import Path

import click
import pytest

from everloop.cli.main import cli as root
from everloop.core.errors import InvalidInput
from everloop.ui import render
from everloop.ui.words import sentence, tone

# A command line in a page: the command, then the first word of its arguments.
TURNED = "safe\u202egnp.exe"
NAMED = re.compile(r"(?<=[>`'\"])everloop ([a-z]+)(?: ([a-z]+))?")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (12.0, "12"),
        (1e-9, "1e-09"),
        (123456.7, "123,457"),
        ("0.25", "0.25"),
        ("nan", "nan"),
        ("inf", "inf"),
        (float("inf"), "inf"),
        ("poisson", "poisson"),
        (True, "True"),
    ],
)
def test_numbers_show_the_digits_that_matter(value: float | str | None, text: str) -> None:
    assert text == render.number(value)


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (2e15, "2000.0 TB")],
)
def test_bytes_have_a_unit(count: int | None, text: str) -> None:
    assert text == render.size(int(count) if count is not None else None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.25, "0.25 s"), (42, "42 s"), (192, "3 min 12 s"), (7300, "2 h 1 min"),
     (200000, "2 d 7 h")],
)  # fmt: skip
def test_a_length_of_time_has_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert text == render.span(seconds)


@pytest.mark.parametrize(
    ("log", "text"), [(None, "–"), (0.0, "1"), (-2.3026, "0.1"), (100.0, "10^43")]
)
def test_evidence_is_written_as_a_factor(log: float | None, text: str) -> None:
    assert text == render.evalue(log)


def test_an_instant_is_shown_in_utc_with_the_exact_one_behind_it() -> None:
    instant = datetime(2026, 5, 1, 1, 30, 12, tzinfo=timezone(timedelta(hours=2)))

    text = str(render.when(instant))

    assert ">2026-04-30 23:30</time>" in text
    assert "2026-04-30 23:30:12 UTC" in text


def test_a_digest_is_short_and_the_whole_one_is_behind_it() -> None:
    text = str(render.digest("blake3:" + "ab" * 32))

    assert f'title="blake3:{"ab" * 32}"' in text
    assert ">blake3:ababababab…<" in text


def test_what_a_user_chose_is_escaped_in_every_helper() -> None:
    evil = '"><script>'

    shown = [
        render.digest(evil),
        render.short_id(evil),
        render.when(datetime(2026, 1, 1, tzinfo=UTC)),
    ]

    assert not any("<script>" in str(text) for text in shown)


@pytest.mark.parametrize(
    ("segments", "path"),
    [
        (("p", "a b"), "/p/a%20b"),
        (("p", "../x"), "/p/..%2Fx"),
        (("p", "a?b#c"), "/p/a%3Fb%23c"),
        (("ref", "run:1"), "/ref/run:1"),
    ],
)
def test_every_part_of_an_address_stays_one_part(segments: tuple[str, ...], path: str) -> None:
    assert path == render.address(*segments)


def test_parameters_without_a_value_are_left_out_of_an_address() -> None:
    assert "/p?a=1%262" == render.address("p", a="1&2", b=None)


def test_states_have_a_tone_and_unknown_ones_are_neutral() -> None:
    assert ("good", "bad", "idle") == (tone("promoted"), tone("rolled_back"), tone("whatever"))


def test_a_refused_action_reads_as_refused() -> None:
    assert "was refused release.start" == sentence("release.start", "denied")
    assert "began a release" == sentence("release.start")
    assert "performed future.verb" == sentence("future.verb")


def test_what_evidence_decides_reads_as_decided() -> None:
    assert "promoted a version by the evidence" == sentence("release.observe", "ok", "promoted")


def test_every_command_that_a_page_names_exists() -> None:
    folder = Path(str(resources.files("everloop.ui")))
    texts = [path.read_text() for path in (*folder.rglob("*.html"), *folder.glob("*.py"))]
    named = {tuple(found) for text in texts for found in NAMED.findall(text)}

    context = click.Context(root)
    for name, part in named:
        command = root.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            assert part in command.list_commands(context), (name, part)
    assert ("data", "commit") in named


def test_what_turns_text_is_named_where_it_is_read_and_kept_where_it_is_sent_back() -> None:
    page = render.page("login.html", code=TURNED)

    assert f'value="{TURNED}"' in page
    assert page.count("\u202e") == page.count(f'value="{TURNED}"')


def test_a_name_cannot_look_like_another_by_turning_text() -> None:
    page = render.page("error.html", error=InvalidInput("input.odd", TURNED, hint="-"), status=400)

    assert "safe⟨U+202E⟩gnp.exe" in page
    assert "\u202e" not in page
