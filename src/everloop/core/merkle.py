"""The RFC 6962 / RFC 9162 Merkle tree: hashes, roots and proofs as pure functions.

A "leaf" is the data itself, of any length; it is hashed here, once. A "node" is a 32-byte hash.
A stored tree is a set of complete-subtree nodes addressed by ``(level, index)``: level 0 holds the
leaf hashes, and node ``(level, index)`` covers the leaves ``index << level`` up to
``(index + 1) << level``. Complete nodes never change, so a store only ever adds rows; the ragged
right edge is computed when a root or a proof is asked for. This module knows nothing of entries,
storage or signatures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

GetNode: TypeAlias = Callable[[int, int], bytes]
"""Returns the stored hash of the complete node ``(level, index)``."""

Node: TypeAlias = tuple[int, int, bytes]
"""A complete node to store: ``(level, index, hash)``."""

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf's data (RFC 9162 section 2.1.1, prefix 0x00)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 9162 section 2.1.1, prefix 0x01)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """Return the root over the leaves' data, in one pass and O(log n) memory."""
    return root_of_hashes(map(leaf_hash, leaves))


def root_of_hashes(leaf_hashes: Iterable[bytes]) -> bytes:
    """Return the root over leaves of which only the hashes are left."""
    peaks: list[bytes] = []
    for position, leaf in enumerate(leaf_hashes):
        node, carry = _require_hash(leaf), position
        while carry & 1:
            node = node_hash(peaks.pop(), node)
            carry >>= 1
        peaks.append(node)
    return _fold(peaks)


def new_nodes(size_before: int, leaf: bytes, get_node: GetNode) -> list[Node]:
    """Return the nodes that become complete when ``leaf`` is appended at ``size_before``.

    The first is the leaf's own hash; the rest are the nodes above it, lowest first. On average
    there are two. ``get_node`` is asked for at most log2(size) older nodes.

    Raises:
        ValueError: the size is negative, or a stored node is not 32 bytes long.
    """
    _require_size(size_before)
    level, index, node = 0, size_before, leaf_hash(leaf)
    made = [(level, index, node)]
    while index & 1:
        node = node_hash(_require_hash(get_node(level, index - 1)), node)
        level, index = level + 1, index >> 1
        made.append((level, index, node))
    return made


def root(size: int, get_node: GetNode) -> bytes:
    """Return the root of the tree over the first ``size`` leaves.

    Raises:
        ValueError: the size is negative.
    """
    _require_size(size)
    return _range_root(0, size, get_node)


def inclusion_proof(index: int, size: int, get_node: GetNode) -> list[bytes]:
    """Return the audit path of leaf ``index`` in the tree of ``size`` (RFC 9162 2.1.3.1).

    Raises:
        ValueError: the index is not in the tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    return _path(index, 0, size, get_node)


def consistency_proof(old: int, new: int, get_node: GetNode) -> list[bytes]:
    """Return the proof that the tree of ``old`` is a prefix of the tree of ``new`` (2.1.4.1).

    It is empty when ``old`` is 0 or equals ``new``: there is nothing to show.

    Raises:
        ValueError: not ``0 <= old <= new``.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} is no prefix of a tree of {new}")
    if old in (0, new):
        return []
    begin, end, is_whole = 0, new, True
    rest: list[bytes] = []
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            rest.append(_range_root(middle, end, get_node))
            end = middle
        else:
            rest.append(_range_root(begin, middle, get_node))
            begin, is_whole = middle, False
    # The range now ends exactly at `old`: its hash opens the proof, unless it is the whole old
    # tree, whose root the verifier has already.
    opening = [] if is_whole else [_range_root(begin, end, get_node)]
    return opening + rest[::-1]


def verify_inclusion(
    index: int,
    size: int,
    hashed_leaf: bytes,
    proof: list[bytes],
    expected_root: bytes,
) -> bool:
    """Say whether ``proof`` shows ``hashed_leaf`` at ``index`` of the tree (2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes([hashed_leaf, expected_root, *proof]):
        return False
    position, last, node = index, size - 1, hashed_leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == expected_root


def verify_consistency(
    old: int,
    new: int,
    old_root: bytes,
    new_root: bytes,
    proof: list[bytes],
) -> bool:
    """Say whether ``proof`` shows that the old tree is a prefix of the new one (2.1.4.2)."""
    if not 0 <= old <= new or not _are_hashes([old_root, new_root, *proof]):
        return False
    if old == new:
        return not proof and old_root == new_root and (old > 0 or old_root == EMPTY_ROOT)
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = proof if old & (old - 1) else [old_root, *proof]
    return bool(path) and _walk_consistency(old - 1, new - 1, path) == (old_root, new_root)


def _walk_consistency(position: int, last: int, path: list[bytes]) -> tuple[bytes, bytes] | None:
    while position & 1:
        position, last = position >> 1, last >> 1
    old_node = new_node = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if position & 1 or position == last:
            old_node = node_hash(sibling, old_node)
            new_node = node_hash(sibling, new_node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_node = node_hash(new_node, sibling)
        position, last = position >> 1, last >> 1
    return (old_node, new_node) if last == 0 else None


def _path(index: int, begin: int, end: int, get_node: GetNode) -> list[bytes]:
    downward: list[bytes] = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            downward.append(_range_root(middle, end, get_node))
            end = middle
        else:
            downward.append(_range_root(begin, middle, get_node))
            begin = middle
    return downward[::-1]


def _range_root(begin: int, end: int, get_node: GetNode) -> bytes:
    # `begin` is always aligned to the size of the range's largest complete subtree, because the
    # ranges come from the RFC's own splits; so complete nodes can be peeled off from the left.
    peaks: list[bytes] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        peaks.append(_require_hash(get_node(level, begin >> level)))
        begin += 1 << level
    return _fold(peaks)


def _fold(peaks: list[bytes]) -> bytes:
    if not peaks:
        return EMPTY_ROOT
    node = peaks[-1]
    for left in reversed(peaks[:-1]):
        node = node_hash(left, node)
    return node


def _split(n: int) -> int:
    # The largest power of two smaller than n, for n of at least 2.
    return 1 << ((n - 1).bit_length() - 1)


def _are_hashes(values: list[bytes]) -> bool:
    return all(len(value) == HASH_BYTES for value in values)


def _require_hash(value: bytes) -> bytes:
    if len(value) != HASH_BYTES:
        raise ValueError(f"a Merkle node has {HASH_BYTES} bytes, not {len(value)}")
    return value


def _require_size(size: int) -> None:
    if size < 0:
        raise ValueError(f"a tree cannot have {size} leaves")
