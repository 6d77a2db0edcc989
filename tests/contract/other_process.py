"""What the contract tests run in processes of their own: ``python -m ... <what> <address>``."""

from __future__ import annotations

import sys

import msgspec

from everloop.core.ids import Id
from everloop.core.ports import MetadataStore
from tests.contract.kinds import Counter
from tests.contract.stores import open_store

FIRST, SECOND = Id("first"), Id("second")


def add_one(store: MetadataStore, *keys: Id) -> int:
    """Add one to each counter within one transaction; return the new value."""
    value = 0
    with store.write() as tx:
        for key in keys:
            found = tx.find(Counter, key)
            assert found is not None
            value = tx.replace(msgspec.structs.replace(found, value=found.value + 1)).value
    return value


def tell(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    what, address, *rest = sys.argv[1:]
    store = open_store(address)
    tell("ready")
    if what == "count":
        for _ in range(int(rest[0])):
            add_one(store, FIRST)
    elif what == "pairs":  # for ever; the parent kills it
        while True:
            tell(add_one(store, FIRST, SECOND))
    elif what == "half":
        with store.write() as tx:
            for key in (FIRST, SECOND):
                found = tx.find(Counter, key)
                assert found is not None
                tx.replace(msgspec.structs.replace(found, value=found.value + 1))
                tell("changed")
            sys.stdin.read()  # for ever; the parent kills it
    store.close()


if __name__ == "__main__":
    main()
