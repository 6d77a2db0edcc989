"""Text for terminals: what users stored must not move the cursor, colour or hide anything."""

from __future__ import annotations

import re
from datetime import datetime
from enum import Enum

# Control characters, and those that reorder or hide text (Unicode TR 36, section 2).
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_NUMBER = re.compile(r"-?\d+\.?\d*(e[-+]?\d+)?")
MOST_PAIRS = 4
SHORT_CHARS = 8
_BREAKS = re.compile(r"[\t\n]")


def clean(text: str) -> str:
    """Return the text with every character that could steer a terminal written out."""
    return _HARMFUL.sub(_escape, text)


def clean_line(text: str) -> str:
    """Return the text as one harmless line."""
    return _BREAKS.sub(" ", clean(text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def clean_json(text: str) -> str:
    """Return JSON text with harmful characters as JSON escapes, its meaning unchanged."""
    return _HARMFUL.sub(_escape_json, text)


def _escape_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(
        f"\\u{int.from_bytes(units[at : at + 2], 'big'):04x}" for at in range(0, len(units), 2)
    )


def to_short(value: object) -> str:
    """Return a value as `to_cell` does, exact numbers given as texts with six digits."""
    if isinstance(value, str) and len(value) > SHORT_CHARS and _NUMBER.fullmatch(value):
        return f"{float(value):.6g}"
    return to_cell(value)


def to_cell(value: object) -> str:
    """Return a value as one short line for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return clean_line(str(value.value)).replace("_", " ")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if hasattr(value, "__struct_fields__"):  # what stands in a list of a listing's item
        return " ".join(to_cell(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, dict):
        pairs = [f"{clean_line(str(key))}={to_short(item)}" for key, item in value.items()]
        more = len(pairs) - MOST_PAIRS
        return ", ".join(pairs[:MOST_PAIRS] + ([f"... {more} more"] if more > 0 else []))
    if isinstance(value, list | tuple):
        return ", ".join(to_cell(item) for item in value) or "-"
    return clean_line(str(value))
