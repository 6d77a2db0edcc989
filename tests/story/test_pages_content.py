"""What the pages say about a project in the middle of its life."""

from __future__ import annotations

import json
import re

import pytest

from everloop.core.wire import Label
from everloop.gate.verbs import EvaluateGate, WaiveGate
from everloop.govern.audit import EntryList, ListEntries
from everloop.kernel.admin import CreateProject
from everloop.kernel.authz import Role
from everloop.loop.model import LoopState
from everloop.loop.verbs import Advance, Claim, Lease, RunView, StartRun
from everloop.monitor import feedback
from everloop.registry.evidence import GateReport, Waiver
from everloop.release.model import Guardrail
from everloop.track.inputs import AddInputs, NamedData, NamedModel, RunExtended
from tests.unit.release.released import faults
from tests.unit.ui.filled import Filled, Reader, app_of, login_code


@pytest.fixture(scope="module")
def filled() -> Filled:
    return Filled()


@pytest.fixture(scope="module")
def reader(filled: Filled) -> Reader:
    return filled.reader()


def words(text: str) -> str:
    """Return what a reader sees of a page, with single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def test_the_overview_tells_traffic_alert_loss_and_decisions(reader: Reader) -> None:
    text = words(reader.get("/p/demo").text)

    assert "champion 1.2.0: 50 %" in text
    assert "canary 1.3.0: 50 %" in text
    assert "Losses doubled plain" in text
    assert "27 mean loss of the last block" in text
    assert "owner began a release demand@1.3.0 to bikes" in text
    assert "paula waived a gate" in text


def test_what_evidence_decided_is_told_with_its_reason() -> None:
    fresh = Filled()
    assert fresh.live is not None
    bad = faults(Guardrail.ERROR, champion=0, canary=20, share=0.5)
    ended = fresh.released.observe(fresh.live, bad).release

    overview, audit = (words(fresh.reader().get(f"/p/demo{page}").text) for page in ("", "/audit"))
    mine = ListEntries(resource=f"model_version:{ended.candidate}", action="release.observe")
    entries = fresh.world.owner.perform("audit.list", mine, EntryList).items

    assert "rolled back by the evidence demand@1.3.0 to bikes rolled back Evidence" in overview
    assert "rolled back by the evidence Evidence" in audit
    assert [("rolled_back", ended.why), ("canary", fresh.live.release.why)] == [
        (entry.decision, entry.reason) for entry in entries
    ]


def test_decisions_are_told_however_much_routine_came_after_them() -> None:
    fresh = Filled()
    assert fresh.live is not None
    bad = faults(Guardrail.ERROR, champion=0, canary=20, share=0.5)
    fresh.released.observe(fresh.live, bad)
    for number in range(310):
        claim = Claim(deployment=fresh.deployment, owner=f"number {number}")
        fresh.world.clock.push(days=1)
        fresh.world.loop.perform("loop.claim", claim, Lease)

    overview = words(fresh.reader().get("/p/demo").text)

    assert "rolled back by the evidence demand@1.3.0 to bikes" in overview
    assert "owner began a release demand@1.3.0 to bikes" in overview
    assert "took control" not in overview


def test_a_waived_refusal_is_told_with_its_waiver_on_the_overview() -> None:
    fresh = Filled()
    report = EvaluateGate(version="demand@1.3.0")
    judged = fresh.world.owner.perform("gate.evaluate", report, GateReport)
    before = words(fresh.reader().get("/p/demo").text)
    paula = fresh.world.person("pat", Role.APPROVER)
    paula.perform("gate.waive", WaiveGate(version=judged.version, why="told by a test"), Waiver)

    after = words(fresh.reader().get("/p/demo").text)

    assert "let pass" not in before
    assert "let pass: told by a test" in after


def test_a_champion_after_a_rollback_is_not_called_the_first() -> None:
    fresh = Filled()
    assert fresh.live is not None
    fresh.released.rollback()
    fresh.released.rollback()

    text = words(fresh.reader().get("/p/demo").text)

    assert "first champion" not in text
    assert "no version before it to go back to" in text


def test_the_loop_tells_its_steps_with_their_reasons() -> None:
    fresh = Filled()
    loop, deployment = fresh.world.loop, fresh.deployment
    lease = loop.perform("loop.claim", Claim(deployment=deployment, owner="here"), Lease)
    start = StartRun(
        deployment=deployment,
        model="demand",
        cause="manual",
        at=fresh.world.clock.now(),
        fence=lease.fence,
        why="Losses rose.",
    )
    run = loop.perform("loop.start", start, RunView).run
    step = Advance(
        run=run.id,
        before=LoopState.TRIGGERED,
        after=LoopState.TRAINING,
        fence=lease.fence,
        at=fresh.world.clock.now(),
        why="Froze 500 rows.",
    )
    loop.perform("loop.advance", step, RunView)
    reader = fresh.reader()

    text = words(reader.get("/p/demo").text)

    assert re.search(r"everloop-loop moved on loop run \w+ training Froze 500 rows\.", text)
    assert re.search(r"everloop-loop began loop run \w+ triggered Losses rose\.", text)
    assert "Retrain training" in text
    assert "Losses rose." in words(reader.get(f"/p/demo/loop/{run.id}").text)


def test_a_version_shows_what_admitted_it(filled: Filled, reader: Reader) -> None:
    text = words(reader.get(f"/p/demo/models/demand/{filled.versions[1].version}").text)

    assert "admitted by waiver" in text
    assert "production" in text


def test_a_refused_version_shows_the_check_that_failed() -> None:
    fresh = Filled()
    version = fresh.versions[0]
    fresh.world.owner.perform("gate.evaluate", EvaluateGate(version=version.id), GateReport)

    text = words(fresh.reader().get(f"/p/demo/models/demand/{version.version}").text)

    assert "failed" in text
    assert "signature verified" in text


def test_the_history_of_an_alias_says_who_when_and_what_was_before(reader: Reader) -> None:
    text = words(reader.get("/p/demo/models/demand").text)

    assert "production 1.1.0 1.2.0 owner" in text


def test_charts_have_the_points_of_their_metrics_in_one_answer(
    filled: Filled, reader: Reader
) -> None:
    runs = "&".join(f"run={run}" for run in filled.runs)

    found = json.loads(reader.get(f"/p/demo/runs/plot?key=loss&{runs}").text)

    assert [f"fit {number} plain" for number in range(3)] == [run["name"] for run in found["runs"]]
    assert [50, 50, 50] == [len(line["x"]) for line in found["lines"]]
    assert 1.1 == found["lines"][1]["y"][0]


def test_the_chart_of_losses_marks_each_champion(reader: Reader) -> None:
    series = json.loads(reader.get("/p/demo/deployments/bikes/losses").text)

    assert ["1.1.0", "1.2.0"] == [mark["label"] for mark in series["marks"]]
    assert series["is_time"]


def test_what_is_over_is_not_asked_for_again(filled: Filled, reader: Reader) -> None:
    finished = reader.get(f"/p/demo/runs/{filled.runs[0]}").text
    assert filled.live is not None
    undecided = reader.get(f"/p/demo/releases/{filled.live.release.id}").text

    assert "hx-trigger" not in finished
    assert "hx-trigger" in undecided


@pytest.mark.parametrize(
    ("ref", "page"),
    [
        ("run:{run}", "/p/demo/runs/{run}"),
        ("release:{release}", "/p/demo/releases/{release}"),
        ("loop_run:{turn}", "/p/demo/loop/{turn}"),
        ("model_version:{version}", "/p/demo/models/demand/1.1.0"),
        ("model:demand@production", "/p/demo/models/demand/1.2.0"),
        ("dataset:bike@1", "/p/demo/datasets/bike/1"),
        ("deployment:{deployment}", "/p/demo/deployments/bikes"),
        ("alert:{alert}", "/p/demo/lineage?ref=alert%3A{alert}"),
    ],
)
def test_every_node_leads_to_its_page(filled: Filled, reader: Reader, ref: str, page: str) -> None:
    assert filled.live is not None
    names = {
        "run": filled.runs[0],
        "release": filled.live.release.id,
        "turn": filled.turn,
        "version": filled.versions[0].id,
        "deployment": filled.deployment,
        "alert": filled.alert,
    }

    answer = reader.get("/p/demo/ref/" + ref.format(**names))

    assert page.format(**names) == answer.headers["location"]


def test_the_only_project_opens_by_itself_and_several_are_offered() -> None:
    fresh = Filled()
    reader = fresh.reader()
    assert "/p/demo" == reader.get("/").headers["location"]

    fresh.world.instance(CreateProject(name="second"), "project.create")

    assert {"/p/demo", "/p/second"} <= set(re.findall(r'href="([^"]+)"', reader.get("/").text))


def test_a_session_cookie_is_secure_behind_https(filled: Filled) -> None:
    nobody = Reader(app_of(filled.world.kernel))
    form = {"code": login_code(filled.world)}

    plain = nobody.post("/login", form).headers["set-cookie"]
    nobody.base = "https://127.0.0.1"
    form = {"code": login_code(filled.world)}
    secure = nobody.post("/login", form).headers["set-cookie"]

    assert "Secure" not in plain
    assert "Secure" in secure


def test_a_run_names_the_data_and_the_models_that_it_used() -> None:
    filled = Filled()
    run = filled.runs[0]
    data = NamedData(name="bike@1", digest="a1b2", source_type="local", tags={})
    other = NamedData(name="weather", digest="c3d4", source_type="http", tags={})
    asked = AddInputs(run=run, data=(data, other), models=(NamedModel(model="m-17", step=3),))
    filled.world.owner.perform("run.add_inputs", asked, RunExtended)

    text = filled.reader().get(f"/p/demo/runs/{run}").text

    assert 'href="/p/demo/datasets/bike/1"' in text
    assert "weather" in text
    assert "c3d4" in text
    assert "m-17" in text


def test_a_release_is_drawn_with_its_split_its_evidence_and_the_way_back() -> None:
    fresh = Filled()
    assert fresh.live is not None
    bad = faults(Guardrail.ERROR, champion=2, canary=3, share=0.5)
    seen = fresh.released.observe(fresh.live, bad)
    reader, place = fresh.reader(), f"/p/demo/releases/{seen.release.id}"

    page = reader.get(place).text
    traffic, evidence, proof = (
        json.loads(reader.get(f"{place}/{part}").text) for part in ("traffic", "evidence", "proof")
    )

    assert "/p/demo/deployments/bikes/roll-back" in page
    assert ["intended share", "share that came"] == [line["label"] for line in traffic["lines"]]
    assert [0.2, None] == traffic["lines"][1]["values"]
    assert ["rolls back", "all together", "error"] == [line["label"] for line in evidence["lines"]]
    assert [2.0, 2.0] == evidence["lines"][0]["values"]
    assert ["proves", "error"] == [line["label"] for line in proof["lines"]]
    assert ["to 50%"] == [mark["label"] for mark in traffic["marks"]]


def test_the_kill_switch_and_a_drill_are_thrown_from_the_deployments_page() -> None:
    fresh = Filled()
    reader, place = fresh.reader(), "/p/demo/deployments/bikes"
    form = {"csrf": reader.csrf(place), "confirm": "yes", "reason": "smoke in the room"}

    halted = reader.post(f"{place}/halt", {**form, "request": "one"})
    during = words(reader.get(place).text)
    resumed = reader.post(f"{place}/resume-releases", {**form, "request": "two"})
    drilled = reader.post(f"{place}/drill", {**form, "request": "three"})
    after = words(reader.get(place).text)

    assert [303, 303, 303] == [halted.status_code, resumed.status_code, drilled.status_code]
    assert "smoke in the room" in during
    assert "Resume the deployment" in during
    assert "switching" in after


def test_labels_that_were_refused_are_shown_by_reason(
    filled: Filled, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MOST_WAITING", 0)
    key = filled.released.deployment().deployment.id
    labels = (Label(key="order-7", value=1.0),)
    ask = feedback.AddFeedback(labels=labels, deployment=key, wait_hours=1.0)
    filled.world.owner.perform("feedback.add", ask, feedback.FeedbackReceipt)

    text = words(reader.get("/p/demo/deployments/bikes").text)

    assert "Refused labels Reason Labels The last of them When no room 1 order-7" in text
