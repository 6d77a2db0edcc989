"""A batch goes on where it stopped, answers alike wherever it runs, and never mixes answers."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from everloop.app.batch import Batch
from everloop.core.errors import Conflict, InvalidInput, MissingExtra
from everloop.export.model import Subject
from everloop.serve.bundle import read_description
from tests.unit.serve.standalone import SIGNER, seal
from tests.unit.serve.test_batch import rows, served


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return subject_of(tmp_path / "bundle", 3)


def subject_of(folder: Path, number: int) -> Subject:
    seal(folder, number)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    bundle = read_description(folder, SIGNER.public_key)
    return Subject(bundle=bundle, files=files, public_key=SIGNER.public_key.hex())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    parquet.write_table(rows(1_000), path, row_group_size=100)
    return path


def outputs(path: Path) -> list[float]:
    return parquet.read_table(path)["rentals"].to_pylist()  # type: ignore[no-any-return]


def test_a_file_of_answers_is_in_the_order_of_the_rows(
    tmp_path: Path, subject: Subject, source: Path
) -> None:
    batch = Batch(subject, [source], tmp_path / "out.parquet", keep=["name"], part_rows=300)

    assert [300, 300, 300, 100] == list(batch.run(workers=1))
    assert {"ok": 1_000} == batch.finish()

    assert served(rows(1_000)) == outputs(tmp_path / "out.parquet")
    names = parquet.read_table(tmp_path / "out.parquet")["name"].to_pylist()
    assert [f"r{k}" for k in range(1_000)] == names
    assert not (tmp_path / ".out.parquet.parts").exists()


def test_a_csv_file_is_one_file_in_the_order_of_the_rows(
    tmp_path: Path, subject: Subject, source: Path
) -> None:
    target = tmp_path / "out.CSV"
    batch = Batch(subject, [source], target, keep=["name"], part_rows=300)

    list(batch.run(workers=1))
    assert {"ok": 1_000} == batch.finish()

    table = csv.read_csv(target)
    assert [f"r{k}" for k in range(1_000)] == table["name"].to_pylist()
    assert served(rows(1_000)) == table["rentals"].to_pylist()
    assert not (tmp_path / ".out.CSV.parts").exists()


def test_kept_columns_that_csv_has_no_form_for_are_told_and_nothing_is_lost(
    tmp_path: Path, subject: Subject
) -> None:
    table = rows(10)
    lists = pa.array([[k, k] for k in range(10)])
    source = tmp_path / "lists.parquet"
    parquet.write_table(table.append_column("pair", lists), source)
    batch = Batch(subject, [source], tmp_path / "out.csv", keep=["pair"])
    list(batch.run(workers=1))

    with pytest.raises(InvalidInput, match=r"written as \.csv"):
        batch.finish()

    assert [".out.csv.parts", "bundle", "lists.parquet"] == sorted(
        path.name for path in tmp_path.iterdir()
    )


@pytest.mark.parametrize("name", ["out.json", "out.pq", "out.txt"])
def test_a_name_of_a_file_of_another_kind_does_not_become_a_folder(
    tmp_path: Path, subject: Subject, source: Path, name: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        Batch(subject, [source], tmp_path / name)

    assert "batch.target" == refused.value.code
    assert ".parquet or .csv" in str(refused.value.hint)
    assert not (tmp_path / name).exists()

    (tmp_path / name).mkdir()  # unless somebody means it
    assert not Batch(subject, [source], tmp_path / name).is_file


def test_a_folder_that_is_called_like_a_file_of_answers_is_told(
    tmp_path: Path, subject: Subject, source: Path
) -> None:
    (tmp_path / "out.csv").mkdir()

    with pytest.raises(InvalidInput, match="is a folder"):
        Batch(subject, [source], tmp_path / "out.csv")


@pytest.mark.slow
def test_processes_answer_as_one_does(tmp_path: Path, subject: Subject, source: Path) -> None:
    batch = Batch(subject, [source], tmp_path / "out.parquet", part_rows=300)

    assert 1_000 == sum(batch.run(workers=2))
    batch.finish()

    assert served(rows(1_000)) == outputs(tmp_path / "out.parquet")


def test_what_was_answered_before_an_interruption_stays(
    tmp_path: Path, subject: Subject, source: Path
) -> None:
    target = tmp_path / "out"
    first = Batch(subject, [source], target, part_rows=300)
    working = first.run(workers=1)
    next(working)
    next(working)
    working.close()  # type: ignore[attr-defined]
    before = [(target / f"part-{k:05d}.parquet").read_bytes() for k in range(2)]

    again = Batch(subject, [source], target, part_rows=300)
    assert [300, 100] == list(again.run(workers=1))
    assert {"ok": 1_000} == again.finish()

    assert before == [(target / f"part-{k:05d}.parquet").read_bytes() for k in range(2)]
    answers = [each for part in again.plan.parts for each in outputs(target / part.name)]
    assert served(rows(1_000)) == answers


@pytest.mark.parametrize("what", ["version", "rows", "columns"])
def test_answers_to_something_else_are_not_mixed_in(
    tmp_path: Path, subject: Subject, source: Path, what: str
) -> None:
    target = tmp_path / "out"
    list(Batch(subject, [source], target).run(workers=1))
    keep = ["name"] if what == "columns" else []
    if what == "version":
        subject = subject_of(tmp_path / "other", 4)
    if what == "rows":
        parquet.write_table(rows(999), source)

    with pytest.raises(Conflict) as refused:
        Batch(subject, [source], target, keep=keep)
    batch = Batch(subject, [source], target, keep=keep, restart=True)

    assert "batch.other" == refused.value.code
    assert 1 == len(batch.remaining())
    list(batch.run(workers=1))
    found = parquet.read_table(target / "part-00000.parquet")
    assert {str(subject.bundle.version_id)} == set(found["model_version"].to_pylist())


def test_a_folder_of_files_is_read_whole(tmp_path: Path, subject: Subject) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    csv.write_csv(rows(30), folder / "a.csv")
    parquet.write_table(rows(20), folder / "deep" / "b.parquet")
    (folder / ".hidden.parquet").write_bytes(b"no Parquet")
    (folder / "notes.txt").write_text("nothing")

    batch = Batch(subject, [folder], tmp_path / "out.parquet")
    list(batch.run(workers=1))
    batch.finish()

    assert [*served(rows(30)), *served(rows(20))] == outputs(tmp_path / "out.parquet")


def test_somebody_elses_folder_is_left_alone(
    tmp_path: Path, subject: Subject, source: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")

    with pytest.raises(InvalidInput) as refused:
        Batch(subject, [source], tmp_path / "mine")

    assert "batch.target" == refused.value.code


def test_a_spoiled_bundle_answers_nothing(tmp_path: Path, subject: Subject, source: Path) -> None:
    batch = Batch(subject, [source], tmp_path / "out")
    model = tmp_path / "out" / ".bundle" / "model.txt"
    model.write_bytes(model.read_bytes().replace(b"leaf_value=", b"leaf_value=9", 1))

    with pytest.raises(Exception, match="not what was sealed"):
        list(batch.run(workers=1))

    assert 1 == len(batch.remaining())


def test_a_file_that_is_no_table_is_told(tmp_path: Path, subject: Subject) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing")

    with pytest.raises(InvalidInput) as refused:
        Batch(subject, [tmp_path / "bad.parquet"], tmp_path / "out")

    assert "batch.unreadable" == refused.value.code


def test_a_cluster_without_its_library_is_told(
    tmp_path: Path, subject: Subject, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(MissingExtra) as refused:
        list(Batch(subject, [source], tmp_path / "out").run("ray"))

    assert "everloop[ray]" in refused.value.hint


@pytest.mark.slow
def test_a_ray_cluster_answers_as_one_process_does(
    tmp_path: Path, subject: Subject, source: Path
) -> None:
    pytest.importorskip("ray")
    batch = Batch(subject, [source], tmp_path / "out.parquet", part_rows=300)

    assert 1_000 == sum(batch.run("ray", workers=2))
    batch.finish()

    assert served(rows(1_000)) == outputs(tmp_path / "out.parquet")


def test_answers_never_take_the_place_of_the_rows(subject: Subject, source: Path) -> None:
    before = source.read_bytes()

    for restart in (False, True):
        with pytest.raises(InvalidInput):
            Batch(subject, [source], source, restart=restart)

    assert before == source.read_bytes()


def test_answers_that_are_finished_are_replaced_only_when_asked(
    tmp_path: Path, subject: Subject, source: Path
) -> None:
    place = tmp_path / "out.parquet"
    first = Batch(subject, [source], place)
    list(first.run(workers=1))
    first.finish()
    ids = parquet.read_table(place)["prediction_id"].to_pylist()

    with pytest.raises(Conflict):
        Batch(subject_of(tmp_path / "other", 4), [source], place)

    assert ids == parquet.read_table(place)["prediction_id"].to_pylist()
    again = Batch(subject, [source], place, restart=True)
    list(again.run(workers=1))
    assert {"ok": 1_000} == again.finish()
