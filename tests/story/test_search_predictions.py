"""Searching predictions: by version, arm, time, inputs and truth, over their sealed segments."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from everloop.core.errors import InvalidInput
from everloop.core.ids import Id
from everloop.monitor import search
from everloop.monitor.alerts import SearchAlerts
from everloop.monitor.model import Alert, AlertKind, AlertState
from everloop.monitor.queries import AlertList
from everloop.monitor.search import FoundPredictions, SearchPredictions
from everloop.release.model import Deployment
from tests.story.governed import Tale, tell


@pytest.fixture(scope="module")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Tale:
    """Eighteen answers in three segments: outputs 11.5 to 16.5 in each, an hour apart."""
    folder: Path = tmp_path_factory.mktemp("tale")
    return tell(folder / "everloop.db")


def find(tale: Tale, filter: str = "", **more: object) -> FoundPredictions:
    ask = msgspec.structs.replace(SearchPredictions(filter=filter), **more)
    return tale.owner.perform("prediction.search", ask, FoundPredictions)


def places(tale: Tale, filter: str) -> list[int]:
    """Return which of the answers were found, in the order in which they were made."""
    return sorted(tale.predictions.index(row.id) for row in find(tale, filter).items)


ALL = list(range(18))


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("", ALL),
        ("output = 11.5", [0, 6, 12]),
        ("output > 15 and arm = 'champion'", [4, 5, 10, 11, 16, 17]),
        ("arm = 'CANARY' or status != 'ok'", []),
        ("not arm = 'canary'", ALL),
        ("version = 'm@1'", ALL),
        ("version = 'm@production' and output in (12.5)", [1, 7, 13]),
        ("version.run.params.leaves = '15' and output < 12", [0, 6, 12]),
        ("model.number > 1", []),
        ("shadow is null", []),
        ("deployment = 'm' and output = 11.5", [0, 6, 12]),
        ("deployment.name = 'other'", []),
        ("not deployment = 'other' and output = 11.5", [0, 6, 12]),
        ("inputs.a = 0.5 and inputs.b >= 1 and output = 11.5", [0, 6, 12]),
        ("inputs.a = 'x' or inputs.c is not null", []),
        ("label = 12 and latency_us between 50 and 150 and output = 16.5", [5, 11, 17]),
        ("unit is null and output = 16.5", [5, 11, 17]),
    ],
)
def test_predictions_are_found_by_what_they_say(
    tale: Tale, filter: str, expected: list[int]
) -> None:
    assert expected == places(tale, filter)


def test_predictions_are_found_by_time_and_id(tale: Tale) -> None:
    first = min(row.at for row in find(tale).items)
    sixth = first.replace(hour=6).isoformat()

    assert ALL[6:] == places(tale, f"at >= '{sixth}'")
    assert ALL[:6] == places(tale, f"at < '{sixth}'")
    assert ALL[6:7] == places(tale, f"at = '{sixth}'")
    assert ALL[:7] == places(tale, f"at between '{first.isoformat()}' and '{sixth}'")
    assert ALL == places(tale, f"at = '{first.date()}'")
    assert [] == places(tale, f"at != '{first.date()}'")
    assert ALL[3:4] == places(tale, f"id = '{tale.predictions[3]}'")


def test_only_the_segments_that_can_hold_them_are_read(tale: Tale) -> None:
    first = min(row.at for row in find(tale).items)

    assert 18 == find(tale).looked_at
    assert 6 == find(tale, f"at < '{first.replace(hour=6).isoformat()}'").looked_at
    assert 6 == find(tale, f"id = '{tale.predictions[3]}'").looked_at
    assert 0 == find(tale, "deployment = 'other'").looked_at


def test_pages_put_together_are_the_whole_the_newest_first(tale: Tale) -> None:
    pages = [find(tale, limit=4)]
    while pages[-1].next is not None:
        pages.append(find(tale, limit=4, after=pages[-1].next))

    assert tale.predictions[::-1] == [row.id for page in pages for row in page.items]


def test_a_search_that_reads_enough_says_where_to_go_on(
    tale: Tale, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MOST_ROWS", 6)

    first = find(tale, "output = 11.5")
    second = find(tale, "output = 11.5", after=first.next)

    assert ([tale.predictions[12]], 6) == ([row.id for row in first.items], first.looked_at)
    assert [tale.predictions[6]] == [row.id for row in second.items]


@pytest.mark.parametrize(
    ("filter", "position"),
    [
        ("arm = 'chmpion'", 7),
        ("output like '1%'", 1),
        ("output = 'x'", 10),
        ("inputs.a > 'x'", 1),
        ("at = 'noon'", 6),
        ("version = 5", 11),
        ("version.nothing = 5", 1),
        ("outptu = 5", 1),
    ],
)
def test_a_mistake_is_told_with_its_position(tale: Tale, filter: str, position: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        find(tale, filter)

    assert ("filter.invalid", position) == (refused.value.code, refused.value.context["position"])


def test_alerts_are_found_by_what_they_are_about(tale: Tale) -> None:
    def found(filter: str) -> list[str]:
        answer = tale.owner.perform("alert.search", SearchAlerts(filter=filter), AlertList)
        return [alert.summary for alert in answer.items]

    with tale.world.kernel.store.write() as tx:
        for summary, kind, state in (("drifted", "drift", "open"), ("lost", "loss", "resolved")):
            tx.insert(
                Alert(
                    id=tale.world.kernel.services.ids.new(),
                    project=tx.select(Deployment)[0].project,
                    deployment=tale.deployment,
                    version=tale.version.id,
                    kind=AlertKind(kind),
                    at=tale.world.clock.now(),
                    raised_at=tale.world.clock.now(),
                    subject="window:x",
                    summary=summary,
                    columns=(),
                    state=AlertState(state),
                )
            )

    assert ["drifted"] == found("kind = 'drift' AND deployment = 'm'")
    assert ["lost"] == found("state != 'open' AND version.alias = 'production'")
    assert [] == found("raised_at > now")


@pytest.mark.parametrize("after", ["x", "", ".", str(Id("0")) + "."])
def test_a_wrong_cursor_is_refused(tale: Tale, after: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        find(tale, after=after)

    assert "query.cursor_invalid" == refused.value.code
