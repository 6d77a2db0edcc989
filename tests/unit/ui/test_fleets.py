"""The pages of fleets show who runs what, and change it with the verbs."""

from __future__ import annotations

import pytest

from tests.kit import world
from tests.story.fleet import Yard
from tests.unit.edge import sealed
from tests.unit.ui.filled import Reader, app_of, session_of


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    made = Yard(world(), tmp_path_factory.mktemp("yard"))
    made.seal(sealed.lightgbm_model(rounds=2))
    return made


@pytest.fixture
def reader(yard: Yard) -> Reader:
    return Reader(app_of(yard.world.kernel), session_of(yard.world))


def test_a_project_without_a_fleet_says_how_to_make_one() -> None:
    fresh = world()

    page = Reader(app_of(fresh.kernel), session_of(fresh)).get("/p/demo/fleets")

    assert (200, True) == (page.status_code, "everloop fleet create" in page.text)


def test_a_fleet_shows_its_groups_and_devices_and_goes_on_and_back(
    reader: Reader, yard: Yard
) -> None:
    yard.create("vans")
    yard.enrol("vans", "van-1", "canary")
    yard.release("vans", yard.bundles[0])
    page = "/p/demo/fleets/vans"

    assert "van-1" in reader.get(page).text
    assert "has reached canary" in reader.get(page).text
    assert 'href="/p/demo/fleets/vans"' in reader.get("/p/demo/fleets").text

    form = {"csrf": reader.csrf(page), "reason": "it is well", "confirm": "yes"}
    assert 303 == reader.post(f"{page}/step", {**form, "request": "1" * 32}).status_code
    assert "has reached rest" in reader.get(page).text
    assert 303 == reader.post(f"{page}/roll-back", {**form, "request": "2" * 32}).status_code
    assert "There is nothing to roll back to." in reader.get(page).text
    assert yard.show("vans").release is None


def test_a_fleet_that_is_not_there_is_a_page_that_says_so(reader: Reader) -> None:
    assert 404 == reader.get("/p/demo/fleets/none").status_code
