"""A source that goes wrong ends its import FAILED with a code within seconds, and leaves nothing behind."""

from pathlib import Path

import pytest

from tests.e2e.world import Files, World, wait_until
from tests.faults.hub import Rule

SIZE = 1_000_000
FILES: Files = {"big.bin": SIZE, "config.json": b"{}", "small.bin": 3000}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Rule(status=404, headers={"x-error-code": "EntryNotFound"}), "SOURCE_NOT_FOUND"),
        (Rule(status=404), "SOURCE_NOT_FOUND"),
        (Rule(status=401), "SOURCE_FORBIDDEN"),
        (Rule(status=403, headers={"x-error-code": "GatedRepo"}), "SOURCE_FORBIDDEN"),
        (Rule(status=500), "SOURCE_UNAVAILABLE"),
        (Rule(hang_up=True), "SOURCE_UNAVAILABLE"),
        (Rule(drop_after=0), "SOURCE_UNAVAILABLE"),
        (Rule(resize=-10), "SOURCE_INVALID"),
        (Rule(resize=+10), "SOURCE_INVALID"),
        (Rule(html=True), "SOURCE_INVALID"),
        (Rule(redirect="{path}"), "SOURCE_INVALID"),
        (Rule(headers={"content-encoding": "gzip"}), "SOURCE_INVALID"),
        (Rule(status=429, headers={"retry-after": "3600"}), "SOURCE_UNAVAILABLE"),
    ],
    ids=[
        "no file",
        "plain 404",
        "401",
        "gated",
        "500",
        "hangs up",
        "drops",
        "too short",
        "too long",
        "HTML",
        "redirect loop",
        "encoded",
        "come back in an hour",
    ],
)
def test_a_source_that_stays_bad_fails_with_its_code(world: World, fault: Rule, code: str) -> None:
    model, folder = world.model(FILES), world.folder(world.person())
    fault.path = f"{model.id}/resolve/.*big.bin"
    world.hub.set(fault)

    task = world.bring(model, folder, by=folder.owner)  # which waits a minute, and no hour

    assert (task["status"], task["error"]["code"], task["error"]["step"]) == ("FAILED", code, "DOWNLOAD")
    assert task["error"]["message"]
    world.insist_on_nothing_left(task, folder)


def test_a_connection_that_drops_without_end_and_without_progress_fails(world: World) -> None:
    model, folder = world.model(FILES), world.folder(world.person())
    big = f"{model.id}/resolve/.*big.bin"
    # The first answer brings something; all that follow end where they begin.
    world.hub.set(Rule(path=big, times=1, drop_after=SIZE // 2), Rule(path=big, drop_after=0))

    with world.meanwhile():
        task = world.bring(model, folder, by=folder.owner)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "SOURCE_UNAVAILABLE")
    world.insist_on_nothing_left(task, folder)


def test_a_socket_that_stalls_for_ever_ends_in_bounded_time(world: World) -> None:
    model, folder = world.model(FILES), world.folder(world.person())
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=0))

    with world.meanwhile():
        task = world.bring(model, folder, by=folder.owner)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "SOURCE_UNAVAILABLE")
    world.insist_on_nothing_left(task, folder)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for(world: World, status: int) -> None:
    model, folder = world.model(FILES), world.folder()
    big = f"{model.id}/resolve/.*big.bin"
    world.hub.set(Rule(path=big, status=status, headers={"retry-after": "1"}, times=1))

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    first, second = world.hub.downloads(big)
    assert first.status == status
    assert second.time - first.time >= 1


def test_a_listing_that_is_refused_for_a_while_is_asked_for_again(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    revision = world.scan(model)
    world.hub.set(Rule(path=f"{model.id}/tree/", status=429, headers={"retry-after": "0"}, times=2))

    (task_id,) = world.order([revision["id"]], folder)

    assert world.finished(str(task_id))["status"] == "SUCCEEDED"


def test_failures_cost_no_threads_and_no_files(world: World) -> None:
    folder = world.folder(world.person())

    def fail(times: int) -> None:
        models = [world.model(FILES) for _ in range(times)]
        revisions = [world.scan(model)["id"] for model in models]
        world.hub.set(Rule(path="/resolve/.*big.bin", status=404))
        tasks = world.order(revisions, folder, by=folder.owner)
        assert {world.finished(str(task_id))["status"] for task_id in tasks} == {"FAILED"}
        world.hub.clear()

    def held() -> tuple[int, int, int]:
        threads = len(list(Path(f"/proc/{world.stack.pids['worker']}/task").iterdir()))
        opened = [str(path) for path in world.open_files()]
        sockets = sum(path.startswith("socket:") for path in opened)
        return threads, sockets, len(opened) - sockets

    fail(4)
    threads, sockets, files = held()
    fail(24)

    wait_until(lambda: held()[2] <= files, "files stay open")
    more_threads, more_sockets, _files = held()
    assert more_sockets < sockets + 24, (
        "some connections are kept for the next import, not one for each failure"
    )
    assert more_threads < threads + 24, "the pool of threads is shared"
