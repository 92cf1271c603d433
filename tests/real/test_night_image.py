"""The container that the night's story is about: it has what that needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import night_image
from tests.support.containers import House
from tests.support.postgres import Postgres, folder
from tests.support.rollback import restore, take


@pytest.fixture(scope="module")
def programs() -> Path:
    found = folder()
    if found is None or night_image.lack() is not None:
        pytest.skip(night_image.lack() or "Postgres is not installed")
    return found


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, pool: Path, cluster: Postgres, programs: Path
) -> Iterator[House]:
    made = tmp_path_factory.mktemp("house")
    house = House(made / "data", pool, cluster)
    try:
        archive = made / "night.tar"
        night_image.make(archive, programs)
        night_image.upload(house, archive)
        archive.unlink()
        yield house
    finally:
        house.close()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_it_answers_can_ask_and_comes_back(house: House, programs: Path) -> None:
    house.create("night", container_image="night", **night_image.fields(programs))
    night_image.answers(house, "night")
    assert night_image.size(house, "night", programs) >= night_image.LEAST_BYTES
    code, said = house.run("night", "cat /etc/os-release; curl -sS $HOODY_URL/health")
    assert code == 0
    assert "Debian" in said
    assert json.loads(said[said.index("{") :])["service"] == "hoody"
    row = take(house, "night")
    night_image.ask(house, "night", programs, "DELETE FROM entries WHERE id % 2 = 0")
    night_image.answers(house, "night", night_image.ROWS // 2)
    night_image.ask(house, "night", programs, "DROP TABLE entries")
    assert house.get("night")[0] == 503
    restore(house, "night", row["name"])
    night_image.answers(house, "night")
    house.nothing_is_left(15)
