"""Rows by name on a device: the rule of the server."""

from __future__ import annotations

import pytest

from everloop.edge.device.refusal import EdgeError
from everloop.edge.device.rows import Rows

ROWS = Rows([{"name": "owner", "dtype": "int64", "nullable": False}])


@pytest.mark.parametrize("value", [2**53 + 1, -(2**63), 2**63 - 1, 30.0, -(2.0**53)])
def test_a_whole_number_of_64_bits_is_taken_as_the_nearest_double(value: float) -> None:
    assert [float(value)] == ROWS.to_numbers({"owner": value})


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2.0**53 + 2, 30.5, float("inf")])
def test_what_is_no_whole_number_of_64_bits_is_refused(value: float) -> None:
    with pytest.raises(EdgeError) as refused:
        ROWS.to_numbers({"owner": value})

    assert "edge.row_invalid" == refused.value.code
    assert "64 bits" in str(refused.value)
