"""A part that is away: what was accepted waits for it, and no outcome is lost."""

import time
from contextlib import ExitStack

import pytest

from tests.e2e.world import Files
from tests.faults.hub import Rule
from tests.faults.imports import Site, Witness, fetched_again

MIB = 1 << 20
FILES: Files = {"a.bin": 9 * MIB, "b/c.bin": 300_000, "config.json": b"{}"}


def test_an_import_whose_proxy_is_down_waits_for_it(site: Site) -> None:
    model, folder = site.model(FILES), site.folder()
    revision = site.scan(model)["id"]
    with site.kept_down("proxy"):
        imported = site.order_one(model, revision, folder)
        assert site.task(imported.task_id)["status"] == "PENDING"
        time.sleep(1.5)  # longer than the manager waits before it orders again
        assert site.task(imported.task_id)["status"] == "PENDING"
        imported.insist_on_nothing()
    site.insist_on_success(imported)


def test_a_cancel_while_the_proxy_is_down_needs_no_proxy(site: Site) -> None:
    model, folder = site.model(FILES), site.folder()
    revision = site.scan(model)["id"]
    site.hub.forget()
    with site.kept_down("proxy"):
        imported = site.order_one(model, revision, folder)
        assert site.cancel(imported.task_id)["status"] == "CANCELLED"
    site.stack.wait_ready()
    time.sleep(1.5)
    assert site.task(imported.task_id)["status"] == "CANCELLED"
    assert site.record(imported) == {}
    assert site.hub.seen() == []


def test_an_order_that_the_proxy_reads_after_the_cancel_comes_to_nothing(site: Site) -> None:
    model, folder = site.model(FILES), site.folder()
    revision = site.scan(model)["id"]
    site.hub.set(Rule(path="/resolve/", stall_after=1000))
    with site.frozen("proxy"):
        imported = site.order_one(model, revision, folder)
        assert site.cancel(imported.task_id)["status"] == "CANCELLED"
    # Frozen, not dead: it finds the order in its socket, whose sender has long given up.
    site.until(lambda: site.record(imported).get("finished_at"))
    assert site.record(imported)["state"] == "cancelled"
    assert site.task(imported.task_id)["status"] == "CANCELLED"
    imported.insist_on_nothing()


@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED"])
def test_an_end_that_came_while_the_manager_was_down_is_not_lost(site: Site, end: str) -> None:
    spoil = [Rule(path="a.bin", status=404)] if end == "FAILED" else []
    with ExitStack() as down:
        with site.held_at(f"NEW.state = '{end.lower()}'") as reached:
            imported = site.start(FILES, *spoil)
            site.until(reached)
            down.enter_context(site.kept_down("manager"))
        site.until(lambda: site.record(imported)["finished_at"])
    if end == "FAILED":
        site.insist_on_failure(imported, "SOURCE_NOT_FOUND")
    else:
        site.insist_on_success(imported)


def test_what_is_ready_to_publish_waits_for_a_manager_that_is_down(site: Site) -> None:
    imported = site.start(FILES, Rule(path="a.bin", stall_after=MIB))
    site.until_stalled()
    with Witness(imported):
        with site.kept_down("manager"):
            site.hub.clear()
            site.until(lambda: site.record(imported)["step"] == "archive")
            time.sleep(1.5)
            assert not imported.destination.exists()
        site.insist_on_success(imported)
    assert set(fetched_again(site.hub.downloads()).values()) == {0}
