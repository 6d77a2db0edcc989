"""Keeps secrets out of what is recorded about a run's environment.

A value is masked when its name says that it is secret, when it has the shape of a known kind of
token, or when it is long and as irregular as a key. Masking too much costs a line in a report;
masking too little costs a key.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

MASK: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"(?:^|[^a-z])(?:auth|cookie|credentials?|dsn|jwt|key|pass|passphrase|passw(?:or)?d|private"
    r"|pwd|secrets?|session|signature|tokens?)(?:[^a-z]|$)|(?:token|secret|password|apikey)$",
    re.IGNORECASE,
)
_KNOWN_SHAPE: Final = re.compile(
    r"(?:evl_|gh[oprsu]_|github_pat_|glpat-|hf_|npm_|pypi-|sk-|sk_live_|rk_live_|xox[abeoprs]-"
    r"|AKIA|ASIA|AIza|ya29\.|eyJ[A-Za-z0-9_-]{8,}\.|-----BEGIN )"
)
_URL_PASSWORD: Final = re.compile(
    r"(?P<head>[a-z][a-z0-9+.-]*://[^/\s:@]*):[^/\s@]+@", re.IGNORECASE
)
# Dashes, underscores and slashes part the words of paths and names; keys are one long word, but
# for base64 ones of 30 bytes, the shape of cloud keys.
_WORDLIKE: Final = re.compile(
    r"[A-Za-z0-9+=]{20,}|(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])"
)
_BITS_A_CHARACTER: Final = 3.5


def mask_value(name: str, value: str) -> str:
    """Return the value, or a mask where it may be a secret."""
    if value and (_SECRET_NAME.search(_spaced(name)) or looks_secret(value)):
        return MASK
    return _URL_PASSWORD.sub(rf"\g<head>:{MASK}@", value)


def mask_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return a command line with the values of secret options and secret texts masked."""
    masked: list[str] = []
    name = ""
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and _is_option_name(option):
            masked.append(f"{option}={mask_value(option, value)}")
            name = ""
        elif argument.startswith("-"):
            masked.append(mask_value("", argument))
            name = argument
        else:
            masked.append(mask_value(name, argument))
            name = ""
    return tuple(masked)


def looks_secret(value: str) -> bool:
    """Tell whether a text has the shape of a token or a key."""
    if _KNOWN_SHAPE.search(value):
        return True
    return any(
        _entropy(run) >= _BITS_A_CHARACTER and _mixes_kinds(run) for run in _WORDLIKE.findall(value)
    )


def _is_option_name(text: str) -> bool:
    return re.fullmatch(r"-{0,2}[A-Za-z][A-Za-z0-9_.-]*", text) is not None


def _spaced(name: str) -> str:
    # DBPassword and dbPassword have words as db_password has.
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)


def _mixes_kinds(text: str) -> bool:
    digits = sum(character.isdigit() for character in text)
    return digits >= 2 and any(character.isalpha() for character in text)


def _entropy(text: str) -> float:
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)
