"""One thing that the server refuses holds up nothing else of its run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everloop.core.errors import InvalidInput
from everloop.data.model import DatasetVersion
from everloop.data.snapshot import commit_path
from everloop.kernel.lineage import Edge
from everloop.track import RunDraft, RunHandle, RunPorts, RunStatus, start_run, sync_spool
from everloop.track.queries import RunDetails, ShowRun
from tests.kit import World, world

GONE = "01a1ff1e-313a-7000-9320-c204e3690fff"


@pytest.fixture
def w() -> World:
    return world()


@pytest.fixture
def ports(tmp_path: Path) -> RunPorts:
    return RunPorts(spool=tmp_path / "spool")


def details(w: World, run: RunHandle) -> RunDetails:
    return w.owner.perform("run.show", ShowRun(run=run.id), RunDetails)


def log_around(run: RunHandle, refused: str) -> None:
    for step in range(50):
        run.log_metric("before", step)
        run.log_params({f"p{step}": step})
    run.log_input(refused)
    run.log_metric("after", 1)
    run.set_tags({"after": "yes"})


def test_what_came_before_and_after_a_refused_thing_arrives(w: World, ports: RunPorts) -> None:
    run = start_run(w.owner, ports=ports)
    log_around(run, GONE)

    assert not run.finish()

    shown = details(w, run)
    assert {"before": 50, "after": 1} == {item.key: item.count for item in shown.metrics}
    assert (50, {"after": "yes"}) == (len(shown.run.params), shown.run.tags)
    assert RunStatus.FINISHED == shown.run.status
    assert not list((run.folder).glob("*.spool"))


def test_what_was_refused_lies_beside_the_spool_with_the_reason(
    w: World, ports: RunPorts, caplog: pytest.LogCaptureFixture
) -> None:
    run = start_run(w.owner, ports=ports)
    log_around(run, GONE)
    run.finish()

    (file,) = run.folder.glob("*.refused.jsonl")
    (line,) = map(json.loads, file.read_text().splitlines())
    assert GONE == line["frame"]["dataset_version"]
    assert "There is no dataset version" in line["refused"]
    assert "refuses one thing" in caplog.text


def test_a_spool_with_a_refused_thing_is_shipped_by_sync(w: World, ports: RunPorts) -> None:
    run = start_run(w.owner, RunDraft(name="left"), ports=ports)
    log_around(run, "nowhere@7")
    run.flush()
    run._writer.stop()
    run._courier._stop.set()
    run._spool.close()  # as a killed process leaves it
    assert ports.spool is not None

    (shipped,) = sync_spool(ports.spool, w.owner).items

    assert (1, RunStatus.KILLED, None) == (shipped.refused, shipped.status, shipped.problem)
    assert 51 == sum(item.count for item in details(w, run).metrics)


def test_a_dataset_is_read_by_name_and_number(w: World, ports: RunPorts, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n1,2\n")
    version: DatasetVersion = commit_path(w.owner, "credit", table)
    with start_run(w.owner, ports=ports) as run:
        run.log_input("credit@1")

    with w.kernel.store.read() as tx:
        edges = [(edge.source, edge.target) for edge in tx.select(Edge)]

    assert any({f"run:{run.id}", f"dataset_version:{version.id}"} == set(edge) for edge in edges)


@pytest.mark.parametrize("wrong", ["credit", "credit@", "credit@x", "", None, 5, "a b@1"])
def test_a_dataset_that_can_be_none_is_refused_at_the_call(
    w: World, ports: RunPorts, wrong: object
) -> None:
    with start_run(w.owner, ports=ports) as run, pytest.raises(InvalidInput, match="credit@3"):
        run.log_input(wrong)  # type: ignore[arg-type]
