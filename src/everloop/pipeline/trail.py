"""Which step made which value, so that lineage follows values through plain Python code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from everloop.core.errors import InvalidInput
from everloop.pipeline.codecs import Encoded, encode
from everloop.pipeline.verbs import RESULT

MOST_PARTS = 32


def part_digests(value: object) -> dict[str, str]:
    """Return the digests of a container's direct parts; numbers and short texts are left out."""
    found = {}
    for name, part in _parts(value):
        encoded = _encode_part(part)
        if encoded is not None and not encoded.is_scalar:
            found[name] = str(encoded.digest)
    return found


def _encode_part(part: object) -> Encoded | None:
    try:
        return encode(part, "a part")
    except InvalidInput:
        return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, tuple | list) and len(value) <= MOST_PARTS:
        names = getattr(value, "_fields", range(len(value)))
        yield from ((str(name), part) for name, part in zip(names, value, strict=True))
    elif isinstance(value, dict) and len(value) <= MOST_PARTS:
        yield from ((str(name)[:100], part) for name, part in value.items())


class Trail:
    """The values that a pipeline's steps returned so far."""

    def __init__(self) -> None:
        self._by_digest: dict[str, int] = {}
        # A number is no proof of origin by its digest, for many are equal; but the very object
        # that a step returned is. Holding on to it keeps its identity from being used again.
        self._by_identity: dict[int, tuple[object, int]] = {}

    def add(self, number: int, value: object, outputs: Mapping[str, str]) -> None:
        """Note what a step returned."""
        for name, digest in outputs.items():
            if name == RESULT or name.startswith(f"{RESULT}."):
                self._by_digest[digest] = number
        for part in (value, *(part for _, part in _parts(value))):
            if isinstance(part, float | str | bytes):
                self._by_identity[id(part)] = (part, number)

    def find_producers(
        self, arguments: Mapping[str, object], inputs: Mapping[str, Encoded]
    ) -> tuple[int, ...]:
        """Return the numbers of the steps whose results are among the arguments."""
        found = set()
        for name, value in arguments.items():
            digests = [] if inputs[name].is_scalar else [str(inputs[name].digest)]
            if digests and digests[0] not in self._by_digest and self._by_digest:
                digests += part_digests(value).values()
            found |= {self._by_digest[digest] for digest in digests if digest in self._by_digest}
            for part in (value, *(part for _, part in _parts(value))):
                same = self._by_identity.get(id(part))
                if same is not None and same[0] is part:
                    found.add(same[1])
        return tuple(sorted(found))
