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
    r"|pwd?|secrets?|session|signature|tokens?)(?:[^a-z]|$)|(?:token|secret|password|apikey)$",
    re.IGNORECASE,
)
_KNOWN_SHAPE: Final = re.compile(
    r"(?:evl_|gh[oprsu]_|github_pat_|glpat-|hf_|npm_|pypi-|sk-|sk_live_|rk_live_|xox[abeoprs]-"
    r"|AKIA|ASIA|AIza|ya29\.|eyJ[A-Za-z0-9_-]{8,}\.|-----BEGIN )"
)
_URL_PASSWORD: Final = re.compile(
    # A port and a path are no password; one may hold slashes and further @.
    r"(?P<head>[a-z][a-z0-9+.-]{0,30}://[^/\s:@]{0,200}):(?!\d+(?:[/\s\"']|$))[^\s\"'<>]{1,300}@",
    re.IGNORECASE,
)
# Dashes, underscores and slashes part the words of paths and names; keys are one long word, but
# for base64 ones of 30 bytes, the shape of cloud keys.
_WORDLIKE: Final = re.compile(
    r"[A-Za-z0-9+=]{20,}|(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])"
)
_KNOWN_TOKEN: Final = re.compile(rf"{_KNOWN_SHAPE.pattern}[A-Za-z0-9_.=+/-]*")
_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
# name = "value", "name": 'value', name=value, name: value; a call or an index is no literal.
_ASSIGNMENT: Final = re.compile(
    r"(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)(?P<sign>[\"']?\]?\s*(?:=|:|=>)\s*)"
    r"(?P<value>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|[^\s\"'()\[\]{},;]+(?![\w(\[.]))"
)
# Names that leave no doubt: no text in quotes behind one of them on its line is kept.
_SURE_NAME: Final = re.compile(
    r"(?i:passw(?:or)?d|passphrase|secret|credential|authorization|(?:api|access)[_-]?key"
    r"|(?:auth|access|bearer)[_-]?token)|[A-Z0-9]_(?:TOKEN|KEY|PASS|PWD)\b"
)
_QUOTED: Final = re.compile(r"(?P<quote>[\"'])(?P<text>(?:(?!(?P=quote))[^\\\n]|\\.)+)(?P=quote)")
_HEADER: Final = re.compile(
    r"(?P<head>authorization[\"']?\s{0,9}[:=]\s{0,9}[\"']?)"
    r"(?:(?:basic|bearer|digest|token)\s+)?[^\s\"',]+",
    re.IGNORECASE,
)
_ELEMENT: Final = re.compile(
    r"(?P<head><\w{0,40}(?:password|secret|token|apikey)\w{0,40}>)[^<\n]+", re.IGNORECASE
)
_NO_SECRETS: Final = frozenset(
    {"None", "True", "False", "null", "true", "false", '""', "''", "str"}
)
_BITS_A_CHARACTER: Final = 3.5


def mask_value(name: str, value: str) -> str:
    """Return the value, or a mask where it may be a secret."""
    if value and (_SECRET_NAME.search(_spaced(name)) or looks_secret(value)):
        return MASK
    return _mask_line(value)


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


def mask_text(text: str) -> str:
    """Return a text of many lines, such as source code, with what may be secrets masked.

    Masked are values in quotes or behind an equals sign or colon whose name says that they are
    secret, all texts in quotes behind such a name that leaves no doubt, tokens of known kinds, keys
    as irregular as chance, passwords in addresses, and private keys from their first line to their
    last.
    """
    bare = _PRIVATE_KEY.sub(MASK, text)
    return "".join(_mask_line(line) for line in bare.splitlines(keepends=True))


def _mask_line(line: str) -> str:
    line = _URL_PASSWORD.sub(rf"\g<head>:{MASK}@", line)
    line = _HEADER.sub(rf"\g<head>{MASK}", line)
    line = _ELEMENT.sub(rf"\g<head>{MASK}", line)
    line = _ASSIGNMENT.sub(_mask_assignment, line)
    sure = _SURE_NAME.search(line)
    if sure is not None:
        line = line[: sure.end()] + _mask_behind(line[: sure.end()], line[sure.end() :])
    line = _KNOWN_TOKEN.sub(MASK, line)
    return _WORDLIKE.sub(lambda found: MASK if looks_secret(found[0]) else found[0], line)


def _mask_assignment(found: re.Match[str]) -> str:
    value = found["value"]
    if value in _NO_SECRETS:
        return found[0]
    quote = value[0] if value[0] in "'\"" else ""
    if _SECRET_NAME.search(_spaced(found["name"])):
        return f"{found['name']}{found['sign']}{quote}{MASK}{quote}"
    if quote:  # a text may hold assignments of its own: dsn = "user=joe password=..."
        inner = _ASSIGNMENT.sub(_mask_assignment, value[1:-1])
        return f"{found['name']}{found['sign']}{quote}{inner}{quote}"
    return found[0]


def _mask_behind(head: str, tail: str) -> str:
    """Return what stands behind a name that is sure, without the texts in it."""
    end = 0
    quote = _open_quote(head)
    if quote:  # the name itself stands in quotes
        end = tail.find(quote) + 1
    return tail[:end] + _QUOTED.sub(_mask_quoted, tail[end:])


def _open_quote(text: str) -> str:
    last = ""
    for character in text:
        if character == last:
            last = ""
        elif not last and character in "\"'":
            last = character
    return last


def _mask_quoted(found: re.Match[str]) -> str:
    text, quote = found["text"], found["quote"]
    # The name of another secret, as in environ["PASSWORD"], is none.
    if MASK in text or re.fullmatch(r"[A-Z0-9_]+", text):
        return found[0]
    return f"{quote}{MASK}{quote}"


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
