"""A cancel at any moment stops the traffic, leaves nothing, and stands."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.world import Files
from tests.faults.hub import Rule
from tests.faults.imports import Import, Site, kill

MIB = 1 << 20
FILES: Files = {"a.bin": 20 * MIB, "b/c.bin": 300_000, "config.json": b"{}"}
SMALL: Files = {f"{number}.bin": 10_000 for number in range(8)}


def insist_that_it_stays_cancelled(site: Site, imported: Import) -> None:
    ended = site.wait(imported)
    assert (ended["status"], ended["error"]) == ("CANCELLED", None)
    imported.insist_on_nothing()
    site.hub.clear()
    time.sleep(1.0)
    assert site.task(imported.task_id) == ended
    imported.insist_on_nothing()


def test_in_the_download_it_cuts_the_traffic_and_removes_what_has_come(site: Site) -> None:
    imported = site.start(FILES, Rule(path="a.bin", rate=2 * MIB))
    site.until(lambda: site.hub.sent("a.bin") > MIB and imported.staging.exists())

    site.cancel(imported.task_id)

    site.until(lambda: not site.hub.open_downloads)
    insist_that_it_stays_cancelled(site, imported)
    assert site.hub.sent() < 20 * MIB


def test_before_a_worker_has_it_nothing_is_asked_of_the_hub(site: Site) -> None:
    site.no_more_workers()
    with site.frozen("worker"):
        imported = site.start(FILES)
        site.until(lambda: site.record(imported))

        site.cancel(imported.task_id)

        assert site.wait(imported)["status"] == "CANCELLED"
    insist_that_it_stays_cancelled(site, imported)
    assert site.hub.seen() == []


@pytest.mark.parametrize(
    "change",
    [
        "NEW.step = 'verify' AND OLD.step = 'download'",
        "NEW.verification IS NOT NULL AND OLD.verification IS NULL",
        "NEW.step = 'archive' AND OLD.step = 'verify'",
    ],
    ids=["after DOWNLOAD", "in VERIFY", "before ARCHIVE"],
)
def test_between_and_in_the_later_steps_nothing_is_published(site: Site, change: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        with site.held_at(change) as reached:
            imported = site.start(SMALL)
            site.until(reached)
            # It waits for whoever writes; the next one to write finds the cancel there.
            cancelling = pool.submit(site.cancel, imported.task_id)
            asked = "SELECT FROM import_tasks WHERE id::text = $1 AND cancel_requested_at IS NOT NULL"
            site.until(lambda: site.rows(asked, imported.task_id))
            time.sleep(0.5)
        cancelling.result()
    insist_that_it_stays_cancelled(site, imported)


def test_while_it_waits_for_the_last_permission_nothing_is_published(site: Site) -> None:
    requester = site.person()
    imported = site.start(FILES, Rule(path="a.bin", stall_after=MIB), by=requester)
    site.until_stalled()
    with site.locked("host_permissions"):  # which the manager has to read before it can permit
        site.hub.clear()
        site.until(lambda: site.record(imported)["step"] == "archive")
        site.cancel(imported.task_id)
        assert site.wait(imported)["status"] == "CANCELLED"
    insist_that_it_stays_cancelled(site, imported)


def test_past_the_point_of_no_return_it_comes_too_late(site: Site) -> None:
    with site.held_at("NEW.state = 'succeeded'") as reached:
        imported = site.start(SMALL)
        site.until(reached)
        with ThreadPoolExecutor(1) as pool:
            cancelling = pool.submit(site.cancel, imported.task_id)
            time.sleep(0.2)
    cancelling.result()
    site.insist_on_success(imported)


@pytest.mark.parametrize("first", ["the worker dies", "the cancel comes"])
def test_a_worker_that_dies_as_well_does_not_undo_it(site: Site, first: str) -> None:
    site.more_workers()
    imported = site.start(FILES, Rule(path="a.bin", stall_at=11 * MIB))
    site.until_stalled()
    if first == "the worker dies":
        kill(site.holder(imported))
        site.cancel(imported.task_id)
    else:
        with site.held_at("NEW.state = 'cancelled'") as reached:
            site.cancel(imported.task_id)
            site.until(reached)
            kill(site.holder(imported))
    insist_that_it_stays_cancelled(site, imported)


def test_one_that_races_with_the_end_gives_one_of_two_ends_and_that_one_for_good(site: Site) -> None:
    ends = race(site, rounds=3, seed=1)
    assert ends <= {"CANCELLED", "SUCCEEDED"}


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_soak_races_with_the_end(site: Site) -> None:
    assert race(site, rounds=60, seed=2) == {"CANCELLED", "SUCCEEDED"}


def race(site: Site, *, rounds: int, seed: int) -> set[str]:
    """Cancel imports about when they end, four at a time; returns how they ended."""
    dice = random.Random(seed)  # noqa: S311 -- seeded moments
    model = site.model(SMALL)
    revision, folder = site.scan(model)["id"], site.folder()
    raced: list[tuple[Import, dict[str, Any]]] = []
    for number in range(rounds):
        batch = [site.order_one(model, revision, folder, path=f"r{number}/{place}") for place in range(4)]
        timers = [
            threading.Timer(dice.uniform(0.0, 0.8), site.cancel, [imported.task_id]) for imported in batch
        ]
        for timer in timers:
            timer.start()
        for timer in timers:
            timer.join()
        raced += [(imported, site.wait(imported)) for imported in batch]
    for imported, ended in raced:
        assert site.cancel(imported.task_id) == {"status": ended["status"]}
        assert site.task(imported.task_id) == ended
        if ended["status"] == "SUCCEEDED":
            imported.insist_on_all()
        else:
            imported.insist_on_nothing()
    return {ended["status"] for _, ended in raced}
