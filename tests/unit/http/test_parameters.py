"""A question's input survives its way through a URL."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.http.parameters import from_parameters, to_parameters


class Known(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    step: int = 0


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    needed: tuple[int, ...]
    name: str = ""
    limit: int = 10
    share: float | None = None
    is_open: bool = False
    runs: tuple[str, ...] = ()
    known: list[Known] | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    best: Known | None = None


@given(
    st.builds(
        Ask,
        share=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        known=st.none() | st.lists(st.builds(Known), min_size=1),
    )
)
def test_every_input_comes_back_as_it_was(ask: Ask) -> None:
    assert ask == from_parameters(Ask, to_parameters(msgspec.to_builtins(ask)))


def test_a_list_is_a_parameter_that_is_repeated() -> None:
    assert [("runs", "a"), ("runs", "b")] == to_parameters({"runs": ["a", "b"]})


@pytest.mark.parametrize(
    "given_twice", [[("name", "a"), ("name", "b")], [("best", "{}"), ("best", "{}")]]
)
def test_what_is_no_list_stands_once(given_twice: list[tuple[str, str]]) -> None:
    with pytest.raises(msgspec.ValidationError):
        from_parameters(Ask, given_twice)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"run": 1}', "null"])
def test_a_structure_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        from_parameters(Ask, [("known", text)])
