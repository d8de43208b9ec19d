"""Somebody else is at work in the destination while an import publishes to it."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from proxy_client.errors import DestinationConflict, StorageError
from proxy_client.wire import OnConflict
from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.volumes import beneath, fsio
from storage_proxy.volumes.publish import Publication
from tests.storages.models import FAIL, OVERWRITE, Model, Storage, chunks, look, put

pytestmark = pytest.mark.anyio

OLD = Model({"config.json": b"old", "kept": b"k", "gone": b"g"})
NEW = Model({"config.json": b"new", "kept": b"k", "sub/added": b"a"})


@pytest.fixture
async def updated(vfs: Storage) -> Storage:
    """A folder with the old model in it, and the new one staged."""
    await OLD.bring(vfs.storage, "/")
    await NEW.stage(vfs.storage, "/")
    return vfs


def publish(directory: Storage, on_conflict: OnConflict = FAIL) -> object:
    return directory.storage.publish(NEW.plan("/"), NEW.staged(), on_conflict)


def between_plan_and_moves(monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], object]) -> None:
    once(monkeypatch, Publication, "_carry_out", meddle)


def once(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, meddle: Callable[[], object], *, at: int = 1
) -> None:
    """Meddle right before the `at`-th call of a function."""
    real, calls = getattr(where, name), []

    def call(*args: object, **kwargs: object) -> object:
        calls.append(name)
        if len(calls) == at:
            meddle()
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, call)


@pytest.mark.parametrize(("name", "data"), [("config.json", b"usr"), ("kept", b"u"), ("sub/added", b"u")])
async def test_a_users_edit_after_the_plan_is_a_conflict(
    updated: Storage, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes
) -> None:
    between_plan_and_moves(monkeypatch, lambda: put(updated.root, {name: data}))
    before = look(updated.root)
    with pytest.raises(DestinationConflict, match=name):
        await publish(updated)
    folders = {"sub": "folder"} if name == "sub/added" else {}
    assert look(updated.root) == before | folders | {name: data}
    assert not await updated.storage.publishing(NEW.task_id)


async def test_an_edit_in_the_last_moment_before_the_rename_is_seen_after_it(
    updated: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look(updated.root)
    once(monkeypatch, fsio, "exchange", lambda: put(updated.root, {"config.json": b"usr"}))
    with pytest.raises(DestinationConflict, match=r"config\.json"):
        await publish(updated)
    assert look(updated.root) == before | {"config.json": b"usr"}


async def test_an_edit_in_the_last_moment_of_a_removal_is_seen_after_it(
    updated: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fsio.rename

    def rename(source_root: int, source: str, target_root: int, target: str) -> None:
        if source == "gone":
            put(updated.root, {"gone": b"usr"})
        real(source_root, source, target_root, target)

    monkeypatch.setattr(fsio, "rename", rename)
    await publish(updated)
    assert (updated.root / "gone").read_bytes() == b"usr"


async def test_an_edit_of_a_file_that_goes_upstream_keeps_it(
    updated: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    between_plan_and_moves(monkeypatch, lambda: put(updated.root, {"gone": b"usr"}))
    await publish(updated)
    assert (updated.root / "gone").read_bytes() == b"usr"
    assert (updated.root / "config.json").read_bytes() == b"new"


async def test_what_the_user_removes_meanwhile_is_brought_again(
    updated: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    between_plan_and_moves(monkeypatch, (updated.root / "config.json").unlink)
    await publish(updated)
    assert (updated.root / "config.json").read_bytes() == b"new"


async def test_an_edit_after_the_moves_is_seen_before_the_commit(
    updated: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look(updated.root)
    once(monkeypatch, Publication, "_insist_on_all", lambda: put(updated.root, {"kept": b"usr"}))
    with pytest.raises(DestinationConflict, match="kept"):
        await publish(updated)
    assert look(updated.root) == before | {"kept": b"usr"}


async def test_an_edit_of_a_moved_file_before_the_commit_stays(
    updated: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look(updated.root)
    once(monkeypatch, Publication, "_insist_on_all", lambda: put(updated.root, {"config.json": b"usr!"}))
    with pytest.raises(StorageError):
        await publish(updated)
    assert look(updated.root) == before | {"config.json": b"usr!"}


async def test_a_users_file_that_has_lost_its_place_is_put_beside_it(
    updated: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(updated.root, {"config.json": b"mine"})

    def meddle() -> None:
        (updated.root / "config.json").unlink()
        put(updated.root, {"config.json": b"second"})

    once(monkeypatch, Publication, "_insist_on_all", meddle)
    with pytest.raises(StorageError):
        await publish(updated, OVERWRITE)
    beside = f"config.json~{NEW.task_id.hex[:8]}"
    assert (updated.root / "config.json").read_bytes() == b"second"
    assert (updated.root / beside).read_bytes() == b"mine"


async def test_a_destination_that_appears_meanwhile_is_merged_into(
    vfs: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await NEW.stage(vfs.storage, "org/model")
    once(monkeypatch, fsio, "rename_new", lambda: put(vfs.root, {"org/mine": b"m"}))
    await vfs.storage.publish(NEW.plan("org/model"), NEW.staged(), FAIL)
    assert (vfs.root / "org" / "mine").read_bytes() == b"m"
    assert (vfs.root / "org" / "model" / "sub" / "added").read_bytes() == b"a"


async def test_a_destination_that_keeps_changing_ends_in_a_conflict(
    updated: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look(updated.root)
    numbers = iter(range(100))

    def restless(*_: object, **__: object) -> None:
        (updated.root / f"note{next(numbers)}").write_bytes(b"")
        raise FileNotFoundError

    monkeypatch.setattr(fsio, "exchange", restless)
    with pytest.raises(DestinationConflict, match="keeps changing"):
        await publish(updated)
    assert before.items() <= look(updated.root).items()


async def test_a_root_that_is_swapped_meanwhile_gets_nothing(
    vfs: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = vfs.root / "inner"
    inner.mkdir()
    storage = VFSStorage("archive", inner)
    for path in ("/", "new/path"):
        model = replace(NEW, task_id=uuid4())
        await model.stage(storage, path)
        elsewhere = vfs.root / f"elsewhere{len(path)}"

        def swap(elsewhere: Path = elsewhere) -> None:
            inner.rename(elsewhere)
            inner.mkdir()

        with monkeypatch.context() as patch:
            once(patch, Publication, "_attempt", swap)
            with pytest.raises(StorageError):
                await storage.publish(model.plan(path), model.staged(), FAIL)
        assert look(elsewhere) == {}
        assert look(inner) == {}


async def test_two_imports_at_once_never_mix(vfs: Storage) -> None:
    models = [
        Model({f"shared{number % 2}": b"%d" % number, f"own{number}": b"x"}, model_id=f"org/model{number}")
        for number in range(6)
    ]
    outcomes = await asyncio.gather(
        *(model.bring(vfs.storage, "/") for model in models), return_exceptions=True
    )
    assert all(
        isinstance(outcome, DestinationConflict) for outcome in outcomes if isinstance(outcome, Exception)
    )
    brought = [
        model for model, outcome in zip(models, outcomes, strict=True) if not isinstance(outcome, Exception)
    ]
    assert 1 <= len(brought) <= 2
    expected = {name: data for model in brought for name, data in model.files.items()}
    found = {path: data for path, data in look(vfs.root).items() if isinstance(data, bytes)}
    assert found == expected


async def test_many_new_paths_below_one_new_folder(vfs: Storage) -> None:
    models = [Model({"file": b"%d" % number}, model_id=f"org/model{number}") for number in range(8)]
    await asyncio.gather(
        *(model.bring(vfs.storage, f"org/model{number}/main") for number, model in enumerate(models))
    )
    for number in range(8):
        assert (vfs.root / f"org/model{number}/main/file").read_bytes() == b"%d" % number


async def test_a_cancelled_publish_is_whole_when_the_cancel_arrives(
    updated: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        go_on.wait(10)

    once(monkeypatch, fsio, "exchange", wait)
    task = asyncio.create_task(publish(updated))
    await asyncio.to_thread(reached.wait, 10)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (updated.root / "config.json").read_bytes() == b"new"
    assert await updated.storage.publishing(NEW.task_id)
    assert (await publish(updated)).task_id == NEW.task_id


async def test_a_cancelled_look_at_large_files_stops_early(
    vfs: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(vfs.root, {"big": b"\0" * 4_000_000})
    plan = Model({"big": b"\1" * 4_000_000}).plan("/")
    reached, go_on, counted = threading.Event(), threading.Event(), []
    real = fsio.stop_point

    def stop_point() -> None:
        counted.append(1)
        reached.set()
        go_on.wait(10)
        real()

    monkeypatch.setattr(fsio, "stop_point", stop_point)
    task = asyncio.create_task(vfs.storage.present_files(plan))
    await asyncio.to_thread(reached.wait, 10)
    task.cancel()
    await asyncio.sleep(0.01)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(counted) == 1


@contextmanager
def swapping(folder: Path, link: Path) -> Iterator[None]:
    """Swap a folder and a link for as long as the block runs."""
    stop = threading.Event()
    parent = os.open(folder.parent, os.O_RDONLY)

    def swap() -> None:
        while not stop.is_set():
            fsio._renameat2(parent, folder.name, parent, link.name, 2)

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        yield
    finally:
        stop.set()
        attacker.join()
        os.close(parent)


@pytest.mark.parametrize("opening", ["_openat2", "_walk"])
async def test_a_racing_attacker_gets_nothing_out(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch, opening: str
) -> None:
    monkeypatch.setattr(beneath, "_open_beneath", getattr(beneath, opening))
    root, outside = quick_path / "root", quick_path / "outside"
    (root / "folder").mkdir(parents=True)
    outside.mkdir()
    (root / "link").symlink_to(outside)
    storage = VFSStorage("archive", root)
    inside = refused = 0
    with swapping(root / "folder", root / "link"):
        for number in range(80):
            try:
                await storage.stream_upload(f"folder/{number}", chunks(b"x"))
                inside += 1
            except StorageError:
                refused += 1
        for number in range(6):
            model = Model(
                {f"folder/{number}m": b"m", "folder/deep/er": b"%d" % number}, model_id=f"org/m{number}"
            )
            try:
                await model.bring(storage, "/", OVERWRITE)
            except StorageError:
                refused += 1
    assert look(outside) == {}
    assert inside
    assert refused
