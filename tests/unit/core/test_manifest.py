"""Safe paths and Merkle roots of manifests."""

from __future__ import annotations

import pytest

from everloop.core.canonical import canonical_json
from everloop.core.digest import content_digest
from everloop.core.errors import InvalidInput
from everloop.core.manifest import FileEntry, check_path, check_paths, make_manifest, manifest_root
from everloop.core.merkle import leaf_hash, node_hash


def entry(path: str, data: bytes = b"x") -> FileEntry:
    return FileEntry(path=path, digest=content_digest(data), size_bytes=len(data))


@pytest.mark.parametrize(
    "path", ["a", "train.parquet", "2011/01/a.csv.gz", "umlaut/größe.csv", "100%.csv", "a b/c"]
)
def test_plain_relative_paths_pass(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "..\\x",
        "C:/x",
        "C:x",
        "\\\\host\\share",
        "file://host/x",
        "a\x00b",
        "a\nb",
        "a\u202eb",
        "a\u200bb",
        "\ud800",
        "%2e%2e/x",
        "%252e%252e%252fx",
        "%25252e%25252e/x",
        "%2fetc/passwd",
        "a%00b",
        "a%5cb",
        "\uff0e\uff0e/x",
        "a\uff0f..\uff0fb",
        "\u2025/x",
        "x.",
        "x ",
        " x",
        "a/x.../b",
        "nul",
        "a/CON.txt",
        "com1",
        "a" * 256,
        "ä" * 128,
        "/".join(["a"] * 600),
    ],
)
def test_paths_that_mean_something_else_somewhere_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_path(path)

    assert refused.value.code == "path.invalid"
    refused.value.message.encode()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "a"),
        ("a.csv", "A.csv"),
        ("größe", "GRÖSSE"),
        ("\u00e9", "e\u0301"),
        ("a", "a/b"),
        ("Data/x", "data"),
        ("ﬁle", "file"),
    ],
)
def test_paths_that_could_be_one_file_are_refused_together(one: str, other: str) -> None:
    for pair in ([one, other], [other, one]):
        with pytest.raises(InvalidInput) as refused:
            check_paths(pair)
        assert refused.value.code == "path.collision"


def test_files_of_one_folder_do_not_collide() -> None:
    check_paths(["a/b", "a/c", "b/a/b"])


def test_the_root_is_the_merkle_root_over_entries_by_path() -> None:
    one, two = entry("a", b"1"), entry("b", b"2")

    root = manifest_root(make_manifest([two, one]))

    expected = node_hash(leaf_hash(canonical_json(one)), leaf_hash(canonical_json(two)))
    assert root == "sha256:" + expected.hex()


def test_a_renamed_file_changes_the_root() -> None:
    assert manifest_root(make_manifest([entry("a")])) != manifest_root(make_manifest([entry("b")]))
