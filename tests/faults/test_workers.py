"""Several workers of one proxy: they take over from each other, and one that comes back does no harm."""

import os
import signal
import time

import pytest

from tests.e2e.world import Files
from tests.faults.hub import Rule
from tests.faults.imports import ATTEMPTS, LOST, Import, Site, fetched_again, kill

MIB = 1 << 20
FILES: Files = {"a.bin": 24 * MIB, "b.bin": 300_000, "config.json": b"{}"}


def begin(site: Site) -> Import:
    site.more_workers()
    imported = site.start(FILES, Rule(path="a.bin", stall_at=11 * MIB))
    site.until_stalled()
    return imported


def pass_on(site: Site, imported: Import, holder: int) -> None:
    """Wait until another worker than `holder` has the import."""
    site.until(lambda: site.holder(imported) != holder)


def goes_on(site: Site, asked: int) -> None:
    """Wait until more was asked for than `asked` times."""
    site.until(lambda: len(site.hub.downloads("a.bin")) > asked)


def test_the_other_worker_goes_on_where_a_killed_one_stopped(site: Site) -> None:
    imported = begin(site)
    holder, asked = site.holder(imported), len(site.hub.downloads("a.bin"))

    kill(holder)

    pass_on(site, imported, holder)
    goes_on(site, asked)
    site.hub.clear()
    site.insist_on_success(imported)
    assert max(fetched_again(site.hub.downloads()).values()) <= LOST


@pytest.mark.parametrize("back", ["meanwhile", "afterwards"])
def test_a_worker_that_stood_still_longer_than_its_lease_does_no_harm_when_it_goes_on(
    site: Site, back: str
) -> None:
    imported = begin(site)
    holder, asked = site.holder(imported), len(site.hub.downloads("a.bin"))
    os.kill(holder, signal.SIGSTOP)
    try:
        pass_on(site, imported, holder)
        goes_on(site, asked)
        if back == "meanwhile":
            os.kill(holder, signal.SIGCONT)
            site.hub.clear()
        else:
            site.hub.clear()
            site.insist_on_success(imported)
    finally:
        os.kill(holder, signal.SIGCONT)
    site.insist_on_success(imported)
    time.sleep(1.0)
    site.insist_on_success(imported)


def test_two_workers_at_the_end_of_the_same_files_do_each_other_no_harm(site: Site) -> None:
    site.more_workers()
    files: Files = {f"{number}.bin": 200_000 for number in range(8)}
    imported = site.start(files, Rule(path="/resolve/", stall_after=199_999))
    site.until_stalled(8)
    holder = site.holder(imported)
    os.kill(holder, signal.SIGSTOP)
    try:
        pass_on(site, imported, holder)
        site.until(lambda: len(site.hub.downloads()) == 16)
        site.until_stalled(16)
        site.hub.clear()
        time.sleep(0.05)
    finally:
        os.kill(holder, signal.SIGCONT)
    site.insist_on_success(imported)


def test_a_worker_that_stood_still_while_it_published_takes_nothing_back(site: Site) -> None:
    site.more_workers()
    folder = site.folder()
    (folder.path / "own.txt").write_text("mine")
    files: Files = {f"{number % 40}/{number}.txt": f"{number}".encode() for number in range(1500)}
    with site.held_at("NEW.publishing AND NOT OLD.publishing") as reached:
        imported = site.start(files, folder=folder, path="/")
        site.until(reached)
        holder = site.holder(imported)
    # Seen to have moved something, it is stopped before it has moved everything.
    site.until(lambda: next(folder.path.glob("*/*.txt"), None))
    os.kill(holder, signal.SIGSTOP)
    assert not list(folder.path.glob(".stowage/*"))
    try:
        pass_on(site, imported, holder)
        site.until(lambda: list(folder.path.glob(".stowage/*")))
    finally:
        os.kill(holder, signal.SIGCONT)
    assert site.wait(imported)["status"] == "SUCCEEDED"
    time.sleep(1.0)
    assert (folder.path / "own.txt").read_text() == "mine"
    (folder.path / "own.txt").unlink()
    site.insist_on_success(imported)


def test_a_worker_that_stands_still_in_a_write_to_the_database_holds_nobody_up(site: Site) -> None:
    site.more_workers()
    with site.held_at("NEW.step = 'verify' AND OLD.step = 'download'") as reached:
        imported = site.start(FILES)
        site.until(reached)
        holder = site.holder(imported)
        os.kill(holder, signal.SIGSTOP)
    try:
        site.insist_on_success(imported)
    finally:
        os.kill(holder, signal.SIGCONT)
    time.sleep(1.0)
    site.insist_on_success(imported)


def test_a_worker_that_is_asked_to_stop_hands_its_import_on_as_often_as_need_be(site: Site) -> None:
    imported = site.start(FILES, Rule(path="/tree/", stall_after=0))
    for number in range(1, ATTEMPTS + 2):
        site.more_workers()
        site.until(lambda number=number: len(site.hub.seen("/tree/")) == number)  # type: ignore[misc]
        kill(site.holder(imported), signal.SIGTERM)
    site.hub.clear()

    site.insist_on_success(imported)

    assert site.record(imported)["attempts"] == 1


def test_an_import_at_whose_listing_every_worker_dies_is_given_up(site: Site) -> None:
    imported = site.start(FILES, Rule(path="/tree/", stall_after=0))
    for number in range(1, ATTEMPTS + 1):
        site.more_workers()
        site.until(lambda number=number: len(site.hub.seen("/tree/")) == number)  # type: ignore[misc]
        kill(site.holder(imported))

    site.insist_on_failure(imported, "ATTEMPTS_EXHAUSTED")

    assert len(site.hub.seen("/tree/")) == ATTEMPTS
    assert site.hub.downloads() == []


def test_bytes_that_an_earlier_attempt_had_as_well_are_no_progress(site: Site) -> None:
    site.more_workers()
    imported = site.start(FILES, Rule(path="a.bin", stall_at=11 * MIB))
    for _ in range(ATTEMPTS):
        site.until_stalled()
        site.until(lambda: site.record(imported)["bytes_done"] > 10 * MIB)
        time.sleep(0.5)
        asked = len(site.hub.downloads("a.bin"))
        kill(site.holder(imported))
        site.more_workers()
        site.until(
            lambda asked=asked: (  # type: ignore[misc]
                len(site.hub.downloads("a.bin")) > asked or site.record(imported)["finished_at"]
            )
        )

    site.insist_on_failure(imported, "ATTEMPTS_EXHAUSTED")
