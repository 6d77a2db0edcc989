"""Committing, listing and reading dataset versions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from everloop.app.client import with_reason
from everloop.core.errors import GateFailed, InvalidInput, NotFound
from everloop.data.contract import read_contract
from everloop.data.model import DatasetVersion
from everloop.data.queries import (
    DatasetList,
    DatasetVersionList,
    ListDatasets,
    ListVersions,
    ProfileAnswer,
    ShowDataset,
)
from everloop.data.snapshot import commit_path, commit_table
from everloop.data.tables import read_table
from everloop.data.verbs import CheckAnswer, CheckDataset
from tests.kit import world

TABLE = pa.table({"hour": [0, 1, 2], "count": [4.0, 5.5, None]})


def test_a_committed_table_reads_back_equal() -> None:
    here = world()

    version = commit_table(here.owner, "bike", TABLE)

    assert read_table(here.blobs, version) == TABLE
    assert (version.number, version.rows, version.format) == (1, 3, "parquet")


def test_the_same_table_again_gives_the_same_version() -> None:
    here = world()

    first = commit_table(here.owner, "bike", TABLE)

    assert commit_table(here.owner, "bike", TABLE) == first


def test_other_rows_make_the_next_version_and_refs_name_both() -> None:
    here = world()
    first = commit_table(here.owner, "bike", TABLE)
    second = commit_table(here.owner, "bike", TABLE.slice(1))

    def show(ref: str) -> DatasetVersion:
        return here.owner.perform("data.show", ShowDataset(ref=ref), DatasetVersion)

    assert show("bike") == second
    assert show("dataset:bike@1") == first
    assert show(first.id) == first
    listed = here.owner.perform("data.versions", ListVersions(name="bike"), DatasetVersionList)
    assert listed.items == (second, first)
    datasets = here.owner.perform("data.list", ListDatasets(), DatasetList)
    assert [(item.name, item.versions) for item in datasets.items] == [("bike", 2)]


@pytest.mark.parametrize("ref", ["cat", "bike@9", "bike@1.0.0", "bike@99999999999999999999"])
def test_a_ref_that_names_nothing_is_not_found(ref: str) -> None:
    here = world()
    commit_table(here.owner, "bike", TABLE)

    with pytest.raises(NotFound):
        here.owner.perform("data.show", ShowDataset(ref=ref), DatasetVersion)


def test_the_profile_of_a_version_counts_its_rows() -> None:
    here = world()
    commit_table(here.owner, "bike", TABLE)

    answer = here.owner.perform("data.profile", ShowDataset(ref="bike"), ProfileAnswer)

    assert answer.profile.rows == 3
    assert answer.profile.columns["count"].nulls == 1


def test_a_broken_contract_stops_the_commit_with_its_counts() -> None:
    here = world()
    contract = read_contract({"columns": {"count": {"nullable": False}}})

    with pytest.raises(GateFailed) as refused:
        commit_table(here.owner, "bike", TABLE, contract=contract)

    assert refused.value.code == "data.contract_violated"
    violations = refused.value.context["violations"]
    assert isinstance(violations, list)
    assert isinstance(violations[0], dict)
    assert (violations[0]["column"], violations[0]["count"]) == ("count", 1)


def test_the_contract_of_the_configuration_holds_when_the_call_has_none() -> None:
    here = world()
    here.configure({"datasets": {"bike": {"contract": {"columns": {"count": {"max": 5}}}}}})

    with pytest.raises(GateFailed):
        commit_table(here.owner, "bike", TABLE)

    with pytest.raises(InvalidInput, match="with a reason only"):
        commit_table(here.owner, "bike", TABLE, allow_violations=True)
    explained = with_reason(here.owner, "The tills were offline")
    commit_table(explained, "bike", TABLE, allow_violations=True)
    checked = here.owner.perform("data.check", CheckDataset(ref="bike"), CheckAnswer)
    assert [item.rule for item in checked.violations] == ["max"]


def test_a_folder_of_csv_files_is_one_table(tmp_path: Path) -> None:
    here = world()
    (tmp_path / "a.csv").write_text("x,y\n1,a\n")
    (tmp_path / "b.csv").write_text("x,y\n2.5,b\n")

    version = commit_path(here.owner, "points", tmp_path)

    assert read_table(here.blobs, version).to_pydict() == {"x": [1.0, 2.5], "y": ["a", "b"]}


def test_csv_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    here = world()
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "b.csv").write_text("z\n2\n")

    with pytest.raises(InvalidInput) as refused:
        commit_path(here.owner, "points", tmp_path)

    assert refused.value.code == "data.schemas_differ"


def test_files_that_are_no_table_are_kept_as_files(tmp_path: Path) -> None:
    here = world()
    (tmp_path / "picture.bin").write_bytes(b"\x00\x01")

    version = commit_path(here.owner, "pictures", tmp_path)

    assert (version.format, version.rows, version.size_bytes) == ("files", None, 2)


def test_a_symbolic_link_is_refused_and_not_followed(tmp_path: Path) -> None:
    here = world()
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.txt").symlink_to(secret)

    with pytest.raises(InvalidInput) as refused:
        commit_path(here.owner, "bike", folder)

    assert refused.value.code == "path.link_refused"


def test_a_file_that_is_no_parquet_is_an_input_error(tmp_path: Path) -> None:
    here = world()
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really PAR1")

    with pytest.raises(InvalidInput) as refused:
        commit_path(here.owner, "bike", tmp_path)

    assert refused.value.code == "data.unreadable"


def test_a_contract_is_not_skipped_by_files_that_are_no_table(tmp_path: Path) -> None:
    here = world()
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "notes.txt").write_text("x")

    with pytest.raises(InvalidInput) as refused:
        commit_path(
            here.owner, "d", tmp_path, contract=read_contract({"columns": {"x": {"max": 0}}})
        )

    assert refused.value.code == "data.not_a_table"
