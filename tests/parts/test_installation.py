"""Two proxies with three workers on one manager, all in one database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PostgresServer
from tests.faults.hub import FaultHub, Rule
from tests.faults.models import digest_tree, make_model
from tests.parts.installation import Installation, wait_until

FILES: dict[str, bytes | int] = {"config.json": b"{}", "weights.bin": 600_000}
HALF = 200_000


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultHub]:
    with FaultHub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, hub: FaultHub
) -> Iterator[Installation]:
    url = postgres_server.create_database(postgres_server.fresh_name("parts"))
    site = Installation(tmp_path_factory.mktemp("site"), url, hub.url, ("east", "west"))
    site.make_tables()
    for name, part, config in (
        ("manager", "manager", "manager"),
        ("east", "proxy", "east"),
        ("west", "proxy", "west"),
        ("east worker", "worker", "east"),
        ("west worker", "worker", "west"),
    ):
        site.start(name, part, config)
    try:
        site.wait_ready()
        site.permit("west:volume1")
        yield site
    finally:
        site.stop()


@pytest.fixture(autouse=True)
def good_hub(hub: FaultHub) -> Iterator[None]:
    yield
    hub.clear()


def model(hub: FaultHub, name: str) -> dict[str, str]:
    return make_model(hub.directory, name, FILES)


def test_the_volumes_of_every_proxy_are_listed(site: Installation) -> None:
    volumes = site.graphql("{ volumes { host } }")["volumes"]
    assert sorted(volume["host"] for volume in volumes) == ["east:volume1", "west:volume1"]


def test_the_order_goes_to_the_proxy_that_has_the_folder(site: Installation, hub: FaultHub) -> None:
    digests = model(hub, "org/own")
    task = site.order("org/own", site.folder("west:volume1"))
    assert site.finished(task) == "SUCCEEDED"
    assert site.digests("west", "org/own") == digests
    assert task in site.imports("west")
    assert task not in site.imports("east")
    assert not list((site.directory / "east").rglob("own"))


def test_an_import_without_a_folder_goes_to_the_proxy_of_the_archive(
    site: Installation, hub: FaultHub
) -> None:
    digests = model(hub, "org/archived")
    task = site.order("org/archived", None)
    assert site.finished(task) == "SUCCEEDED"
    assert digest_tree(site.directory / "east/archive/org/archived/main") == digests
    assert task not in site.imports("west")


def test_a_cancel_on_one_proxy_leaves_the_same_job_of_the_other_alone(
    site: Installation, hub: FaultHub
) -> None:
    digests = model(hub, "org/same")
    hub.set(Rule(path="org/same/resolve/.*weights", stall_after=HALF))
    for proxy in site.proxies:
        site.rows(f"SELECT setval(pg_get_serial_sequence('{proxy}.{proxy}_pgqueuer', 'id'), 1000)")
    tasks = {proxy: site.order("org/same", site.folder(f"{proxy}:volume1")) for proxy in site.proxies}
    jobs = {proxy: site.imports(proxy)[task]["job_id"] for proxy, task in tasks.items()}
    assert jobs == {"east": 1001, "west": 1001}
    hub.wait_for(lambda: hub.sent("org/same/.*weights") >= 2 * HALF)

    site.cancel(tasks["east"])

    assert site.finished(tasks["east"]) == "CANCELLED"
    assert site.status(tasks["west"]) == "RUNNING"
    before = site.imports("west")[tasks["west"]]
    assert (before["attempts"], before["cancel_requested"]) == (1, False)
    hub.clear()
    assert site.finished(tasks["west"]) == "SUCCEEDED"
    assert site.imports("west")[tasks["west"]]["fence"] == before["fence"]
    assert site.digests("west", "org/same") == digests
    assert site.digests("east", "org/same") == {}


def test_another_worker_goes_on_when_the_one_that_runs_is_killed(site: Installation, hub: FaultHub) -> None:
    digests = model(hub, "org/survivor")
    # The hub gives a part of the file to each request and then waits: nobody comes to an end before it is cleared.
    hub.set(Rule(path="org/survivor/resolve/.*weights", stall_after=HALF))
    site.start("east worker 2", "worker", "east")
    wait_until(
        lambda: site.rows("SELECT FROM east.workers WHERE seen_at > now() - interval '3 seconds'")[1:],
        "the second worker does not come up",
    )
    task = site.order("org/survivor", site.folder("east:volume1"))
    hub.wait_for(lambda: hub.sent("org/survivor/.*weights") >= HALF)
    first = site.runner("east", task)

    site.kill(first)

    wait_until(lambda: len(hub.downloads("org/survivor/.*weights")) > 1, "nobody goes on")
    second = site.runner("east", task)
    hub.clear()
    assert site.finished(task) == "SUCCEEDED"
    assert {first, second} == {"east worker", "east worker 2"}
    assert site.digests("east", "org/survivor") == digests


def test_each_part_ends_with_the_signal_and_without_a_fault(
    tmp_path: Path, site: Installation, hub: FaultHub
) -> None:
    ended = site.stop()
    assert set(ended.values()) <= {0, -15}, ended
    for name in ended:
        assert "Traceback" not in site.log(name), site.log(name)
