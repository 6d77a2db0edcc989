"""The Merkle tree: checked against the RFC's recursion, for every size up to 64."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import pytest

from everloop.core import merkle

LIMIT = 64
DATA = [b"entry %d" % number for number in range(LIMIT)]
LEAVES = [merkle.leaf_hash(data) for data in DATA]
VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "ledger" / "merkle.json").read_text("utf-8")
)


def rfc_root(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + rfc_root(leaves[:k]) + rfc_root(leaves[k:])).digest()


ROOTS = [rfc_root(LEAVES[:size]) for size in range(LIMIT + 1)]


class StoredTree:
    """Complete nodes in a dictionary, as a table would hold them."""

    def __init__(self, data: list[bytes]) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        for size, leaf in enumerate(data):
            for level, index, node in merkle.new_nodes(size, leaf, self.get):
                assert (level, index) not in self.nodes
                self.nodes[level, index] = node

    def get(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]


TREE = StoredTree(DATA)


def test_published_vectors_hold() -> None:
    leaves = [bytes.fromhex(data) for data in VECTORS["leaf_data_hex"]]
    tree = StoredTree(leaves)

    assert VECTORS["leaf_hashes_hex"] == [merkle.leaf_hash(leaf).hex() for leaf in leaves]
    assert VECTORS["roots_hex"] == [
        merkle.root(size, tree.get).hex() for size in range(len(leaves) + 1)
    ]
    for case in VECTORS["inclusion"]:
        proof = merkle.inclusion_proof(case["index"], case["size"], tree.get)
        assert case["proof_hex"] == [node.hex() for node in proof]
    for case in VECTORS["consistency"]:
        proof = merkle.consistency_proof(case["old"], case["new"], tree.get)
        assert case["proof_hex"] == [node.hex() for node in proof]


def test_roots_equal_the_recursive_definition_at_every_size() -> None:
    for size in range(LIMIT + 1):
        assert ROOTS[size] == merkle.root(size, TREE.get)
        assert ROOTS[size] == merkle.tree_root(DATA[:size])


def test_stored_nodes_are_the_complete_subtrees_and_nothing_else() -> None:
    expected = {
        (level, index): rfc_root(LEAVES[index << level : (index + 1) << level])
        for level in range(7)
        for index in range(LIMIT >> level)
    }

    assert expected == TREE.nodes


def test_every_inclusion_proof_verifies_and_a_forged_leaf_never_does() -> None:
    forged = merkle.leaf_hash(b"forged")
    for size in range(1, LIMIT + 1):
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, TREE.get)
            root = ROOTS[size]
            assert merkle.verify_inclusion(index, size, LEAVES[index], proof, root)
            assert not merkle.verify_inclusion(index, size, forged, proof, root)
            assert not merkle.verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size - 1])


def test_an_inclusion_proof_holds_for_its_own_position_only() -> None:
    size = 21
    for index in range(size):
        proof = merkle.inclusion_proof(index, size, TREE.get)
        for other in range(size):
            holds = merkle.verify_inclusion(other, size, LEAVES[index], proof, ROOTS[size])
            assert holds is (other == index)


def test_a_changed_shortened_or_lengthened_inclusion_proof_is_rejected() -> None:
    foreign = merkle.leaf_hash(b"foreign")
    for size in (1, 2, 3, 7, 8, 13, 64):
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, TREE.get)
            bad = [[*proof, LEAVES[0]], [LEAVES[0], *proof]]
            bad += [proof[:i] + proof[i + 1 :] for i in range(len(proof))]
            bad += [[*proof[:i], foreign, *proof[i + 1 :]] for i in range(len(proof))]
            bad += [[*proof[:i], proof[i][:31], *proof[i + 1 :]] for i in range(len(proof))]
            for attempt in bad:
                assert not merkle.verify_inclusion(index, size, LEAVES[index], attempt, ROOTS[size])


def test_an_index_outside_the_tree_is_never_included() -> None:
    for index, size in ((-1, 4), (4, 4), (0, 0), (0, -1)):
        assert not merkle.verify_inclusion(index, size, LEAVES[0], [], ROOTS[1])
        with pytest.raises(ValueError, match="not in a tree"):
            merkle.inclusion_proof(index, size, TREE.get)


def test_every_consistency_proof_verifies_and_a_forged_root_never_does() -> None:
    forged = merkle.leaf_hash(b"forged")
    for new in range(LIMIT + 1):
        for old in range(new + 1):
            proof = merkle.consistency_proof(old, new, TREE.get)
            assert merkle.verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)
            assert not merkle.verify_consistency(old, new, forged, ROOTS[new], proof)
            if old:
                assert not merkle.verify_consistency(old, new, ROOTS[old], forged, proof)


def test_a_rewritten_history_has_no_consistency_proof() -> None:
    rewritten = StoredTree([b"rewritten", *DATA[1:]])
    for new in range(2, LIMIT + 1):
        new_root = merkle.root(new, rewritten.get)
        for old in range(1, new):
            proof = merkle.consistency_proof(old, new, rewritten.get)
            assert not merkle.verify_consistency(old, new, ROOTS[old], new_root, proof)


def test_a_changed_shortened_or_lengthened_consistency_proof_is_rejected() -> None:
    foreign = merkle.leaf_hash(b"foreign")
    for old, new in ((1, 2), (3, 7), (4, 7), (6, 8), (8, 64), (33, 64), (63, 64)):
        proof = merkle.consistency_proof(old, new, TREE.get)
        bad = [[], [*proof, LEAVES[0]], [LEAVES[0], *proof]]
        bad += [proof[:i] + proof[i + 1 :] for i in range(len(proof))]
        bad += [[*proof[:i], foreign, *proof[i + 1 :]] for i in range(len(proof))]
        for attempt in bad:
            assert not merkle.verify_consistency(old, new, ROOTS[old], ROOTS[new], attempt)


def test_sizes_out_of_order_are_refused() -> None:
    assert not merkle.verify_consistency(3, 2, ROOTS[3], ROOTS[2], [])
    assert not merkle.verify_consistency(-1, 2, ROOTS[0], ROOTS[2], [])
    for old, new in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no prefix"):
            merkle.consistency_proof(old, new, TREE.get)


def test_the_empty_tree_is_a_prefix_of_everything_and_of_that_alone() -> None:
    assert merkle.verify_consistency(0, 5, merkle.EMPTY_ROOT, ROOTS[5], [])
    assert not merkle.verify_consistency(0, 5, ROOTS[1], ROOTS[5], [])
    assert not merkle.verify_consistency(0, 0, ROOTS[1], ROOTS[1], [])
    assert not merkle.verify_consistency(0, 5, merkle.EMPTY_ROOT, ROOTS[5], [LEAVES[0]])


def test_a_stored_node_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        merkle.new_nodes(1, b"the data itself", lambda _level, _index: b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        merkle.root(2, lambda _level, _index: b"short")


def test_an_inner_node_is_never_a_leaf() -> None:
    left, right = LEAVES[:2]

    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)


def test_an_append_asks_for_few_old_nodes() -> None:
    asked: list[tuple[int, int]] = []

    def get(level: int, index: int) -> bytes:
        asked.append((level, index))
        return TREE.get(level, index)

    made = merkle.new_nodes(63, DATA[63], get)

    assert [(level, (63 >> level) - 1) for level in range(6)] == asked
    expected = [(0, 63), (1, 31), (2, 15), (3, 7), (4, 3), (5, 1), (6, 0)]
    assert expected == [node[:2] for node in made]
    assert all(low[0] + 1 == high[0] for low, high in pairwise(made))


@pytest.mark.parametrize("size", [-1, -64])
def test_a_negative_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="cannot have"):
        merkle.root(size, TREE.get)
    with pytest.raises(ValueError, match="cannot have"):
        merkle.new_nodes(size, DATA[0], TREE.get)
