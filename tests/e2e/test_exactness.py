"""What arrives is what the pinned commit holds, byte for byte, or nothing arrives."""

import hashlib
import shutil

import pytest

from tests.e2e.world import Files, World, wait_until
from tests.faults.hub import Rule
from tests.faults.models import seeded

SIZE = 1_200_000
FILES: Files = {"big.bin": SIZE, "config.json": b"{}", "small.bin": 3000}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def git_blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


# The commit.


def test_the_commit_is_in_the_task_before_the_first_byte(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.hub.set(Rule(path=f"{model.id}/resolve/.*bin", stall_after=0))
    revision = world.scan(model)

    (task_id,) = world.order([revision["id"]], folder)
    world.hub.wait_for(lambda: world.hub.downloads(model.id))

    assert world.proxy("GET", f"/imports/{task_id}").json()["commit"] == revision["digest"]
    wait_until(lambda: world.task(str(task_id))["commit"], "the manager does not hear of the commit", 5)
    assert world.task(str(task_id))["status"] == "RUNNING"
    assert world.hub.sent(f"{model.id}/resolve/.*big.bin") == 0
    world.hub.clear()
    assert world.finished(str(task_id))["status"] == "SUCCEEDED"


def test_a_revision_without_a_known_commit_is_pinned_before_the_first_byte(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    revision = world.scan(model)
    world.rows(
        "UPDATE artifact_revisions SET digest = NULL WHERE digest = $1 AND version = 'main'",
        revision["digest"],
    )
    world.hub.set(Rule(path=f"{model.id}/resolve/.*bin", stall_after=0))

    (task_id,) = world.order([revision["id"]], folder)
    world.hub.wait_for(lambda: world.hub.downloads(model.id))

    assert world.proxy("GET", f"/imports/{task_id}").json()["commit"] == revision["digest"]
    world.hub.clear()
    assert world.finished(str(task_id))["commit"] == revision["digest"]
    assert folder.digests(f"{model.id}/main") == model.digests


def test_every_request_for_bytes_names_the_pinned_commit(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    revision = world.scan(model)
    world.hub.forget()

    (task_id,) = world.order([revision["id"]], folder)
    world.finished(str(task_id))

    assert len(world.hub.downloads(model.id)) == len(FILES)
    assert {
        request.path.split("/resolve/")[1].split("/")[0] for request in world.hub.downloads(model.id)
    } == {revision["digest"]}


# Digests.


@pytest.mark.parametrize("name", ["big.bin", "config.json"])
def test_a_flipped_byte_that_lasts_fails_with_both_digests(world: World, name: str) -> None:
    model, folder = world.model(FILES), world.folder()
    right = model.file(name)
    wrong = flipped(right, 1)
    digest = sha256 if name == "big.bin" else git_blob_id
    world.hub.set(Rule(path=f"{model.id}/resolve/.*{name}", flip_at=1))

    task = world.bring(model, folder)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DIGEST_MISMATCH")
    assert name in task["error"]["message"]
    assert digest(right) in task["error"]["message"]
    assert digest(wrong) in task["error"]["message"]
    assert folder.everything() == {}
    assert world.staged(task["id"]) == []


def test_a_byte_that_is_flipped_once_is_fetched_again(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.scan(model)
    world.hub.forget()
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", flip_at=SIZE // 2, times=1))

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert len(world.hub.downloads(f"{model.id}/.*big.bin")) == 2
    assert int(task["bytesDone"]) == int(task["bytesTotal"])


def test_a_flipped_byte_keeps_the_artifact_storage_empty(world: World) -> None:
    model = world.model(FILES)
    revision = world.scan(model)
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", flip_at=7))

    task = world.bring(model)

    assert task["error"]["code"] == "DIGEST_MISMATCH"
    assert world.revision(revision["id"])["status"] == "FAILED"
    assert not (world.stack.dir.storage / model.id).exists()


# A source that changes.


def test_a_file_that_changes_upstream_mid_way_is_never_spliced(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    changed = FILES | {"big.bin": seeded("changed", SIZE)}
    world.hub.set(
        Rule(
            path=f"{model.id}/resolve/.*big.bin",
            times=1,
            rate=2_000_000,
            call_after=(SIZE // 3, lambda: model.becomes(changed)),
            drop_after=SIZE // 2,
        )
    )

    task = world.bring(model, folder)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "SOURCE_CHANGED")
    assert folder.everything() == {}
    assert world.staged(task["id"]) == []

    again = world.bring(model, folder)

    assert (again["status"], again["commit"] == task["commit"]) == ("SUCCEEDED", False)
    assert folder.digests(f"{model.id}/main") == model.digests


def test_a_hub_that_changes_a_file_without_a_word_is_found_out(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.hub.set(
        Rule(path=f"{model.id}/resolve/.*big.bin", times=1, drop_after=SIZE // 2),
        Rule(path=f"{model.id}/resolve/.*big.bin", serve=seeded("changed", SIZE)),
    )

    task = world.bring(model, folder)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DIGEST_MISMATCH")
    assert folder.everything() == {}


def test_a_splice_is_thrown_away_and_the_file_begins_again(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.hub.set(
        Rule(path=f"{model.id}/resolve/.*big.bin", times=1, drop_after=SIZE // 2),
        Rule(path=f"{model.id}/resolve/.*big.bin", times=1, serve=seeded("changed", SIZE)),
    )

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    starts = [request.range_start for request in world.hub.downloads(f"{model.id}/.*big.bin")]
    assert (starts[0], starts[1] > 0, starts[2]) == (0, True, 0)


def test_a_hub_that_says_it_serves_another_commit_is_believed(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.hub.set(Rule(path=f"{model.id}/resolve/.*small.bin", headers={"x-repo-commit": "f" * 40}))

    task = world.bring(model, folder)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "SOURCE_CHANGED")
    assert folder.everything() == {}


# Transfers.


def test_a_cut_transfer_goes_on_where_it_stopped(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", times=1, drop_after=SIZE // 2))

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    _first, second = world.hub.downloads(f"{model.id}/.*big.bin")
    assert 0 < second.range_start <= SIZE // 2
    assert (second.status, second.sent) == (206, SIZE - second.range_start)


def test_a_source_that_cuts_every_connection_early_gives_the_whole_file_in_the_end(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", drop_after=SIZE // 10))

    task = world.bring(model, folder)

    assert (task["status"], task["error"]) == ("SUCCEEDED", None)
    assert folder.digests(f"{model.id}/main") == model.digests


def test_a_server_without_ranges_gives_the_exact_bytes_also_when_it_is_cut(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.hub.set(
        Rule(path=f"{model.id}/resolve/.*big.bin", times=1, ignore_range=True, drop_after=SIZE // 2),
        Rule(path=f"{model.id}/resolve/", ignore_range=True),
    )

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert [request.status for request in world.hub.downloads(f"{model.id}/.*big.bin")] == [200, 200]
    assert int(task["bytesDone"]) == int(task["bytesTotal"])


@pytest.mark.parametrize(
    "fault",
    [
        Rule(chunked=True, headers={"accept-ranges": None}),
        Rule(stall_after=SIZE // 2, times=1),
        Rule(hang_up=True, times=2),
        Rule(status=500, times=2),
        Rule(resize=-5, times=1),
        Rule(resize=+5, times=1),
        Rule(chunked=True, resize=+5, times=1),
        Rule(chunked=True, drop_after=SIZE // 3, times=1),
    ],
    ids=[
        "no length",
        "stalls",
        "hangs up",
        "500",
        "too short",
        "too long",
        "too long, no length",
        "cut, no length",
    ],
)
def test_a_transfer_that_goes_wrong_for_a_while_ends_with_the_exact_bytes(world: World, fault: Rule) -> None:
    model, folder = world.model(FILES), world.folder()
    fault.path = f"{model.id}/resolve/.*big.bin"
    world.hub.set(fault)

    task = world.bring(model, folder)

    assert (task["status"], task["error"]) == ("SUCCEEDED", None)
    assert folder.digests(f"{model.id}/main") == model.digests


def test_a_range_that_begins_elsewhere_is_not_written_where_it_was_asked_for(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    big = f"{model.id}/resolve/.*big.bin"
    world.hub.set(
        Rule(path=big, times=1, drop_after=SIZE // 2),
        Rule(path=big, times=1, content_range=f"bytes 17-{SIZE - 1}/{SIZE}"),
    )

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests


def test_a_redirect_to_another_host_gives_the_exact_bytes_and_takes_no_token_there(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    shutil.copytree(model.path, world.mirror.directory / model.id)
    world.hub.set(Rule(path=f"{model.id}/resolve/", redirect=f"{world.mirror.url}{{path}}"))

    task = world.bring(model, folder)

    assert (task["status"], task["error"]) == ("SUCCEEDED", None)
    assert folder.digests(f"{model.id}/main") == model.digests
    asked, followed = world.hub.downloads(model.id), world.mirror.downloads(model.id)
    assert len(asked) == len(followed) == len(FILES)
    assert all("authorization" in request.headers for request in asked)
    assert not any("authorization" in request.headers for request in followed)
