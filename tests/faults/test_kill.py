"""kill -9 at any moment: the import goes on from the bytes on disk, and nothing half-done is ever visible."""

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.world import Files
from tests.faults.hub import Rule
from tests.faults.imports import ATTEMPTS, CONNECTIONS, LOST, Import, Site, Witness, fetched_again, kill

MIB = 1 << 20
SMALL: Files = {"weights/c.bin": 300_000, "config.json": b"{}", "empty": b""}
LARGE: Files = {"a.bin": 24 * MIB, "b.bin": 13 * MIB, **SMALL}
HELD = 11 * MIB  # where a download is held, with a piece that is whole and one that is not
MOMENTS = {
    "before it has planned": "NEW.files_total IS NOT NULL AND OLD.files_total IS NULL",
    "between DOWNLOAD and VERIFY": "NEW.step = 'verify' AND OLD.step = 'download'",
    "before its report is stored": "NEW.verification IS NOT NULL AND OLD.verification IS NULL",
    "before the point of no return": "NEW.publishing AND NOT OLD.publishing",
    "after it has published": "NEW.state = 'succeeded'",
}


def begin(site: Site) -> Import:
    """Start an import whose two large files are held half-way."""
    imported = site.start(LARGE, Rule(path=r"/resolve/[^/]+/[ab]\.bin", stall_at=HELD))
    site.until_stalled(2)
    return imported


def insist_on_resumption(site: Site) -> None:
    """The successor asked for ranges, and for no more again than a connection may lose."""
    assert max(fetched_again(site.hub.downloads()).values()) <= LOST
    for name in ("a.bin", "b.bin"):
        assert {request.status for request in site.hub.downloads(f"/{name}$")} == {206}


def test_after_kill_9_of_the_worker_its_successor_resumes_by_range(site: Site) -> None:
    imported = begin(site)
    with Witness(imported):
        commit = site.task(imported.task_id)["commit"]
        killed = site.stack.kill("worker")
        site.hub.wait_for_cut()
        site.hub.clear()

        site.insist_on_success(imported)
    insist_on_resumption(site)
    assert site.stack.pids["worker"] != killed
    assert site.task(imported.task_id)["commit"] == commit is not None


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_killed_at_this_moment_leaves_nothing_undone_and_nothing_twice(
    site: Site, moment: str
) -> None:
    site.more_workers()
    with site.held_at(MOMENTS[moment]) as reached:
        imported = site.start({**SMALL, "b.bin": MIB})
        with Witness(imported):
            site.until(reached)
            assert imported.destination.exists() == (moment == "after it has published")
            kill(site.holder(imported))
    site.insist_on_success(imported)
    # Whole files are not fetched again, whatever was going on.
    assert sorted(request.path.rpartition("/")[2] for request in site.hub.downloads()) == [
        *("b.bin", "c.bin", "config.json")
    ]


def test_a_thousand_files_arrive_although_workers_are_killed_meanwhile(site: Site) -> None:
    site.more_workers(2)
    files: Files = {
        f"{number % 17}/{number}.json": f'{{"number": {number}}}'.encode() for number in range(1000)
    }
    dice = random.Random(4)  # noqa: S311 -- seeded moments
    imported = site.start(files)
    with Witness(imported):
        for _ in range(ATTEMPTS - 1):
            time.sleep(dice.uniform(0.2, 1.2))
            site.kill_holder(imported)
            site.more_workers(2)
        site.insist_on_success(imported)
    # What each connection was at when it died; one that waits for answers takes all that a host may have.
    assert len(site.hub.downloads()) <= 1000 + (ATTEMPTS - 1) * CONNECTIONS


@pytest.mark.parametrize("into", ["nothing", "a folder in use"])
def test_a_worker_killed_again_and_again_while_it_publishes(site: Site, into: str) -> None:
    site.more_workers(2)
    folder = site.folder()
    path = None
    if into == "a folder in use":
        path = "/"
        (folder.path / "mine").mkdir()
        (folder.path / "mine" / "own.txt").write_text("mine")
    files: Files = {f"{number % 7}/{number}.txt": f"{number}".encode() for number in range(150)}
    dice = random.Random(into)  # noqa: S311 -- as above
    with site.held_at("NEW.publishing AND NOT OLD.publishing") as reached:
        imported = site.start(files, folder=folder, path=path)
        site.until(reached)
    for _ in range(ATTEMPTS - 1):
        time.sleep(dice.uniform(0.0, 0.15))
        site.kill_holder(imported)
        site.more_workers(2)
    task = site.wait(imported)
    if path is not None:
        assert (folder.path / "mine" / "own.txt").read_text() == "mine"
        (folder.path / "mine" / "own.txt").unlink()
    assert task["status"] == "SUCCEEDED"
    site.insist_on_success(imported)


@pytest.mark.parametrize("part", ["proxy", "manager"])
def test_kill_9_of_this_service_costs_an_import_no_byte(site: Site, part: str) -> None:
    imported = begin(site)
    with Witness(imported):
        site.stack.kill(part)
        site.hub.clear()

        site.insist_on_success(imported)
    assert set(fetched_again(site.hub.downloads()).values()) == {0}


def test_an_import_survives_kill_9_of_postgresql(site: Site) -> None:
    imported = begin(site)
    with Witness(imported):
        site.stack.kill("postgres")
        site.hub.clear()

        site.insist_on_success(imported)
    assert max(fetched_again(site.hub.downloads()).values()) <= LOST


@pytest.mark.parametrize("end", ["kill -9 of everything", "SIGTERM"])
def test_a_second_start_goes_on_with_what_the_first_one_left(site: Site, end: str) -> None:
    site.no_more_workers()
    imported = begin(site)
    with Witness(imported):
        if end == "SIGTERM":
            assert site.stack.stop() == 0
        else:
            site.stack.kill_all()
        site.until(lambda: not site.hub.open_downloads)
        assert imported.staging.is_dir()
        site.hub.clear()

        site.start_again()
        site.insist_on_success(imported)
    insist_on_resumption(site)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_soak_imports_outlive_whatever_is_killed(site: Site) -> None:
    dice = random.Random(20)  # noqa: S311 -- as above
    files: Files = {**{f"{number}.txt": f"{number}".encode() for number in range(200)}, "large.bin": 48 * MIB}
    ends: dict[str, Callable[[Import], Any]] = {
        "worker": site.kill_holder,
        "worker, politely": lambda imported: site.kill_holder(imported, signal.SIGTERM),
        "proxy": lambda _: site.stack.kill("proxy"),
        "manager": lambda _: site.stack.kill("manager"),
        "postgres": lambda _: site.stack.kill("postgres"),
    }
    for _ in range(40):
        site.more_workers(2)
        imported = site.start(files, Rule(path=r"large\.bin", rate=24 * MIB))
        with Witness(imported):
            for _ in range(ATTEMPTS - 1):
                time.sleep(dice.uniform(0.0, 1.5))
                ends[dice.choice(list(ends))](imported)
                site.stack.wait_ready()
            site.insist_on_success(imported, 120)
