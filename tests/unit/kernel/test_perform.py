"""Authorise, do, record: all of it or nothing."""

from __future__ import annotations

import json
from functools import partial

import pytest

from everloop.core.errors import (
    Conflict,
    Denied,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    StaleVersion,
)
from everloop.core.events import Event
from everloop.kernel import admin, tokens
from everloop.kernel.authz import NOBODY, Role
from everloop.kernel.bootstrap import OWNER
from everloop.kernel.ledger import log
from everloop.kernel.lineage import Edge
from everloop.kernel.perform import Call
from everloop.kernel.performer import LocalPerformer
from tests.kit import World
from tests.unit.kernel.noted import Between, Note, Noted


def entries(place: World) -> list[log.LedgerEntry]:
    with place.kernel.store.read() as tx:
        return tx.select(log.LedgerEntry, order="index")


def payload(place: World, entry: log.LedgerEntry) -> dict[str, object]:
    with place.kernel.store.read() as tx:
        row = tx.find(log.LedgerPayload, entry.id)
    assert row is not None
    assert row.text is not None
    found = json.loads(row.text)
    assert isinstance(found, dict)
    return found


def edges(place: World) -> int:
    with place.kernel.store.read() as tx:
        return tx.count(Edge)


def note(
    who: LocalPerformer, text: str, *, verb: str = "note.full", request: str | None = None
) -> Noted:
    return who.perform(verb, Note(name="n", text=text), Noted, request=request, reason="why not")


def test_a_change_and_its_entry_are_committed_together(place: World) -> None:
    before = len(entries(place))

    note(place.owner, "a")

    (entry,) = entries(place)[before:]
    assert ("note.full", "note:n", "ok") == (entry.action, entry.resource, entry.outcome)
    said = payload(place, entry)
    assert "why not" == said["reason"]
    assert {"name": "n", "text": "a", "fail": False} == said["input"]
    assert isinstance(said["changes"], list)
    assert ["edge"] == [change["kind"] for change in said["changes"]]
    assert 1 == edges(place)


def test_a_handler_that_fails_leaves_nothing(place: World) -> None:
    before = len(entries(place))

    with pytest.raises(Conflict):
        place.owner.perform("note.full", Note(name="n", fail=True), Noted)

    assert 0 == edges(place)
    assert before == len(entries(place))


def test_a_change_that_changes_nothing_leaves_no_entry(place: World) -> None:
    note(place.owner, "a")
    before = len(entries(place))

    assert 1 == note(place.owner, "a").count
    assert before == len(entries(place))


def test_a_change_without_refs_is_found_by_the_row_it_changed(place: World) -> None:
    note(place.owner, "a", verb="note.plain")

    assert entries(place)[-1].resource.startswith("edge:")


def test_a_question_leaves_no_entry(place: World) -> None:
    before = len(entries(place))

    place.owner.perform("probe.read", Note(name="n"), Noted)

    assert before == len(entries(place))


@pytest.mark.parametrize("verb", ["note.full", "note.slow", "probe.admin"])
def test_a_denied_attempt_is_recorded_and_changes_nothing(place: World, verb: str) -> None:
    viewer = place.person("vera", Role.VIEWER)
    before = len(entries(place))

    with pytest.raises(Denied):
        viewer.perform(verb, Note(name="n", text="a"), Noted)

    (entry,) = entries(place)[before:]
    assert ("denied", verb) == (entry.outcome, entry.action)
    assert place.people["vera"].actor == entry.actor
    assert '"reason_code":"access.denied"' in entry.body
    assert [] == payload(place, entry)["changes"]
    assert 0 == edges(place)


def test_the_slow_part_does_not_run_for_those_who_may_not(place: World, between: Between) -> None:
    viewer = place.person("vera", Role.VIEWER)

    with pytest.raises(Denied):
        note(viewer, "a", verb="note.slow")

    assert 0 == between.prepared


def test_a_role_taken_away_during_the_slow_part_counts(place: World, between: Between) -> None:
    writer = place.person("will", Role.CONTRIBUTOR)
    gone = admin.RevokeRole(actor="will", role=Role.CONTRIBUTOR, project="demo")
    between.steps.append(lambda: place.instance(gone, "role.revoke"))

    with pytest.raises(Denied):
        note(writer, "a", verb="note.slow")

    assert 0 == edges(place)


@pytest.mark.parametrize("verb", ["note.full", "note.digest", "note.slow"])
def test_a_repeated_request_gives_the_first_answer_and_changes_nothing(
    place: World, verb: str
) -> None:
    first = note(place.owner, "a", verb=verb, request="r1")
    note(place.owner, "b", verb="note.full")
    before = len(entries(place))

    assert first == note(place.owner, "a", verb=verb, request="r1")
    assert before == len(entries(place))


@pytest.mark.parametrize("verb", ["note.full", "note.digest", "note.secret"])
def test_a_request_id_is_not_for_another_input(place: World, verb: str) -> None:
    note(place.owner, "a", verb=verb, request="r1")

    with pytest.raises(Conflict) as refused:
        note(place.owner, "b", verb=verb, request="r1")

    assert "request.reused" == refused.value.code


def test_a_request_id_is_not_for_another_verb_or_actor(place: World) -> None:
    writer = place.person("will", Role.CONTRIBUTOR)
    note(place.owner, "a", request="r1")

    with pytest.raises(Conflict):
        note(place.owner, "a", verb="note.plain", request="r1")
    with pytest.raises(Conflict):
        note(writer, "a", request="r1")


def test_a_request_id_is_not_for_another_project(place: World) -> None:
    place.project("other")
    note(place.owner, "a", request="r1")

    with pytest.raises(Conflict, match=r"request\.reused"):
        note(place.service(OWNER, "other"), "a", request="r1")


def test_a_caller_who_is_nobody_cannot_fill_the_ledger(place: World) -> None:
    before = len(entries(place))
    asks = {
        "login.open": tokens.OpenSession(secret="guessed"),
        "login.show": tokens.ShowSession(),
        "login.close": tokens.CloseSession(),
    }

    for verb, ask in asks.items():
        with pytest.raises(NotAuthenticated):
            place.kernel.perform(Call(verb=verb, caller=NOBODY, ask=ask))

    assert before == len(entries(place))


def test_a_repeated_request_does_not_help_those_who_may_no_longer(place: World) -> None:
    writer = place.person("will", Role.CONTRIBUTOR)
    note(writer, "a", request="r1")
    gone = admin.RevokeRole(actor="will", role=Role.CONTRIBUTOR, project="demo")
    place.instance(gone, "role.revoke")

    with pytest.raises(Denied):
        note(writer, "a", request="r1")


def test_a_secret_payload_holds_neither_input_nor_output(place: World) -> None:
    note(place.owner, "a very secret text", verb="note.secret")

    said = payload(place, entries(place)[-1])
    assert {"changes", "reason", "verb"} == set(said)
    assert "very secret" not in json.dumps(said)


def test_a_digest_payload_holds_the_output_and_a_digest_of_the_input(place: World) -> None:
    note(place.owner, "bulk", verb="note.digest")

    said = payload(place, entries(place)[-1])
    assert "input" not in said
    assert str(said["input_digest"]).startswith("sha256:")
    assert "output" in said


def test_a_stale_preparation_is_made_anew(place: World, between: Between) -> None:
    between.steps.append(lambda: note(place.owner, "first"))

    done = note(place.owner, "second", verb="note.slow")

    assert (2, 2) == (done.prepared, done.count)


def test_a_preparation_that_is_stale_each_time_gives_up(place: World, between: Between) -> None:
    between.steps += [partial(note, place.owner, f"t{n}") for n in range(9)]

    with pytest.raises(StaleVersion):
        note(place.owner, "mine", verb="note.slow")

    assert 5 == between.prepared


def test_listeners_hear_of_a_change_after_it_is_committed(place: World) -> None:
    heard: list[Event] = []
    seen: list[int] = []

    def listen(event: Event) -> None:
        heard.append(event)
        seen.append(edges(place))

    place.kernel.subscribe(listen)
    note(place.owner, "a", request="r1")
    note(place.owner, "a", request="r1")
    place.owner.perform("probe.read", Note(name="n"), Noted)

    assert [("note.full", "note:n", "r1")] == [(e.verb, e.resource, e.request) for e in heard]
    assert [1] == seen
    assert entries(place)[-1].index == heard[0].ledger_index


def test_an_unknown_verb_is_refused(place: World) -> None:
    with pytest.raises(NotFound) as refused:
        place.owner.perform("note.burn", Note(name="n"), Noted)

    assert "verb.not_found" == refused.value.code


def test_another_input_type_is_refused(place: World) -> None:
    with pytest.raises(InvalidInput):
        place.owner.perform("note.full", admin.CreateProject(name="n"), Noted)


@pytest.mark.parametrize("field", ["request", "reason"])
def test_endless_ids_and_reasons_are_refused(place: World, field: str) -> None:
    place.person("will", Role.CONTRIBUTOR)
    caller = place.people["will"]
    long = {"request": "r" * 101} if field == "request" else {"reason": "r" * 2001}

    with pytest.raises(InvalidInput):
        place.kernel.perform(
            Call(verb="note.full", caller=caller, ask=Note(name="n"), project="demo", **long)
        )


def test_an_unknown_project_and_a_hidden_one_look_the_same(place: World) -> None:
    place.project("hidden")
    place.person("will", Role.CONTRIBUTOR)
    caller = place.people["will"]
    texts = []
    for project in ("hidden", "nowhere"):
        with pytest.raises(Denied) as refused:
            note(LocalPerformer(place.kernel, caller, project), "a")
        texts.append((refused.value.code, str(refused.value), refused.value.context))

    assert texts[0] == texts[1]


def test_the_owner_learns_that_a_project_does_not_exist(place: World) -> None:
    with pytest.raises(NotFound) as refused:
        place.service("owner", "nowhere").perform("probe.read", Note(name="n"), Noted)

    assert "project.not_found" == refused.value.code


def test_an_answer_of_another_type_than_expected_is_a_programming_error(place: World) -> None:
    with pytest.raises(TypeError):
        place.owner.perform("note.full", Note(name="n"), admin.ActorView)
