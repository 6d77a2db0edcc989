"""What a run may log: the same checks in the training process and on the server.

Because the client refuses at the call what the server would refuse later, a spool that was
written can also be shipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from everloop.core.errors import InvalidInput, LimitExceeded
from everloop.core.ids import is_id

MAX_KEY_CHARS: Final = 250
MAX_PARAM_CHARS: Final = 6_000
MAX_TAG_CHARS: Final = 8_000
MAX_PARAMS_A_RUN: Final = 2_000
MAX_KEYS_A_RUN: Final = 10_000
MAX_POINTS_A_BATCH: Final = 200_000
SMALL_FILE_BYTES: Final = 64 * 1024
STRAIGHT_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_PATH_CHARS: Final = 500
MAX_NAME_CHARS: Final = 500
MAX_EXPERIMENT_CHARS: Final = 500
# As MLflow calls it, so that all clients share one.
DEFAULT_EXPERIMENT: Final = "Default"
MAX_ERROR_CHARS: Final = 8_000
PART_CHARS: Final = 250_000
MIN_STEP: Final = -(2**63)
MAX_STEP: Final = 2**63 - 1

_DATASET: Final = re.compile(
    r"(?:dataset:)?(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,99})@(?P<number>[1-9][0-9]{0,8})"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def check_key(key: object, what: str) -> str:
    """Return a metric, parameter or tag name as plain text if it is usable.

    Raises:
        InvalidInput: ``run.key_invalid``.
    """
    if isinstance(key, str) and 0 < len(key) <= MAX_KEY_CHARS and _CONTROL.search(key) is None:
        return to_plain(key)
    raise InvalidInput(
        "run.key_invalid",
        f"{what} name {str(key)[:60]!r} is not usable.",
        hint=f"Use a text of 1 to {MAX_KEY_CHARS} characters without control characters.",
    )


def check_experiment(name: str) -> str:
    """Return an experiment's name as plain text if it is usable.

    It is free text, for it stands in no address and no file name.

    Raises:
        InvalidInput: ``experiment.name_invalid``.
    """
    if len(name.strip()) > 0 and len(name) <= MAX_EXPERIMENT_CHARS and not _CONTROL.search(name):
        return to_plain(name)
    raise InvalidInput(
        "experiment.name_invalid",
        f"{name[:60]!r} can't name an experiment.",
        hint=f"Use 1 to {MAX_EXPERIMENT_CHARS} characters, none of them a control character.",
    )


def check_run_name(name: str) -> str:
    """Return a run's name unchanged if it is usable.

    Raises:
        InvalidInput: ``run.name_invalid``.
    """
    if 0 < len(name) <= MAX_NAME_CHARS:
        return name
    raise InvalidInput(
        "run.name_invalid",
        f"A name of {len(name)} characters can't name a run.",
        hint=f"Use 1 to {MAX_NAME_CHARS} characters.",
    )


def check_texts(values: Mapping[str, str], what: str, max_chars: int) -> None:
    """Let parameters or tags pass, or refuse them by name.

    Raises:
        InvalidInput: ``run.key_invalid``, ``run.value_too_long``.
    """
    for key, value in values.items():
        check_key(key, what)
        if not isinstance(value, str):
            raise InvalidInput(
                "run.value_invalid",
                f"{what} {key[:60]!r} is a {type(value).__name__} and no text.",
                hint="Give it as text: str(value).",
            )
        if len(value) > max_chars:
            raise InvalidInput(
                "run.value_too_long",
                f"{what} {key[:60]!r} has {len(value)} characters.",
                hint=f"At most {max_chars}; log long texts as an artifact.",
            )
        if "\x00" in value or not is_unicode(value):
            raise InvalidInput(
                "run.value_invalid",
                f"{what} {key[:60]!r} holds characters that cannot be stored.",
                hint="Log binary content as an artifact.",
            )


def check_dataset_ref(text: object) -> str:
    """Return an id, or a text such as ``credit@3``, unchanged if it can name a dataset version.

    Raises:
        InvalidInput: ``run.input_invalid``.
    """
    if not (isinstance(text, str) and is_id(text)):
        read_dataset_ref(text)
    return str(text)


def read_dataset_ref(text: object) -> tuple[str, int]:
    """Return name and number of a dataset version given as ``credit@3``.

    Raises:
        InvalidInput: ``run.input_invalid``.
    """
    match = _DATASET.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidInput(
            "run.input_invalid",
            f"{str(text)[:80]!r} names no dataset version.",
            hint="Give its name and number, such as credit@3, or its id.",
        )
    return match["name"], int(match["number"])


def check_artifact_path(path: str) -> str:
    """Return an artifact's path as plain text if it stays inside its run.

    Raises:
        InvalidInput: ``run.path_invalid``.
    """
    parts = path.split("/")
    if (
        0 < len(path) <= MAX_PATH_CHARS
        and _CONTROL.search(path) is None
        and "\\" not in path
        and ":" not in parts[0]
        and not {"", ".", ".."} & set(parts)
    ):
        return to_plain(path)
    raise InvalidInput(
        "run.path_invalid",
        f"Artifact path {path[:60]!r} is not usable.",
        hint="Use a relative path with forward slashes, such as plots/loss.png.",
    )


def check_count(count: int, most: int, what: str) -> None:
    """Refuse more than a run or batch may hold.

    Raises:
        LimitExceeded: ``run.too_many``.
    """
    if count > most:
        raise LimitExceeded(
            "run.too_many",
            f"{count} {what} are more than the {most} allowed.",
            hint="Log less often, or split the work into several runs.",
        )


def to_plain(text: str) -> str:
    """Return the text itself for one of a class derived from ``str``, such as numpy's."""
    return str.__str__(text)


def plain_texts(values: Mapping[str, str]) -> dict[str, str]:
    """Return the texts, and their names, as nothing but ``str``."""
    return {to_plain(key): to_plain(value) for key, value in values.items()}


def in_parts(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield parameters or tags in parts that fit into one request each."""
    part: dict[str, str] = {}
    chars = 0
    for key, value in values.items():
        if part and chars + len(value) > PART_CHARS:
            yield part
            part, chars = {}, 0
        part[key] = value
        chars += len(key) + len(value)
    if part:
        yield part


def to_unicode(text: str) -> str:
    """Return the text with what can't be written as UTF-8 spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_unicode(text: str) -> bool:
    """Tell whether the text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
