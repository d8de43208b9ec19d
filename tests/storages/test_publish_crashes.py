"""Death and error at every single change that a publish makes to the file system.

A publish of each kind is cut short before its first change, its second, and so on until it comes to its end; what
follows must end as if nothing had happened.
"""

import asyncio
import itertools
import shutil
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy_client.errors import StorageError
from proxy_client.wire import OnConflict
from storage_proxy.storages.vfs import VFSStorage
from tests.storages.faults import KILLED, Faults, dying_at, fail
from tests.storages.models import FAIL, OVERWRITE, Model, look, put
from tests.storages.strace import turn

A_THIRD = [pytest.param(3, id="a third"), pytest.param(1, id="all", marks=pytest.mark.soak)]
OLD = Model({"config.json": b"old", "gone/deep/file": b"g", "kept": b"k", "edited": b"e"}, revision="v1")
NEW = Model({"config.json": b"new", "sub/added": b"a", "kept": b"k", "same": b"s"}, revision="v2")
USERS = {"mine": b"m", "sub2/mine": b"m2", "same": b"s"}


def prepare_alone(storage: VFSStorage, root: Path) -> None:
    put(root, {"mine": b"m"})


def prepare_merge(storage: VFSStorage, root: Path) -> None:
    put(root, USERS)


def prepare_update(storage: VFSStorage, root: Path) -> None:
    asyncio.run(OLD.bring(storage, "/"))
    put(root, {**USERS, "edited": b"E"})


def prepare_overwrite(storage: VFSStorage, root: Path) -> None:
    prepare_update(storage, root)
    put(root, {"config.json": b"the user's"})
    (root / "sub").mkdir()
    (root / "sub" / "added").symlink_to("/etc/passwd")


@dataclass(frozen=True)
class Kind:
    prepare: Callable[[VFSStorage, Path], None]
    path: str
    on_conflict: OnConflict = FAIL
    overwritten: tuple[str, ...] = ()
    atomic: bool = False


KINDS = {
    "a new path": Kind(prepare_alone, "new", atomic=True),
    "a new path below new folders": Kind(prepare_alone, "org/model/v2", atomic=True),
    "a merge with the user's files": Kind(prepare_merge, "/"),
    "an update": Kind(prepare_update, "/"),
    "an overwriting update": Kind(
        prepare_overwrite, "/", OVERWRITE, overwritten=("config.json", "sub", "sub/added")
    ),
}


class Folder:
    """A copy of a prepared folder, staged and ready for its publish."""

    def __init__(self, kind: Kind, root: Path) -> None:
        self.kind = kind
        self.root = root
        self.storage = VFSStorage("archive", root)
        self.area = root / ".staging" / str(NEW.task_id)

    async def publish(self) -> object:
        return await self.storage.publish(NEW.plan(self.kind.path), NEW.staged(), self.kind.on_conflict)

    async def discard(self) -> None:
        await (await self.storage.open_staging(NEW.task_id)).discard()

    def publish_again(self) -> None:
        asyncio.run(self.publish())
        asyncio.run(self.discard())

    def users_files(self) -> dict[str, bytes]:
        """Every file that no manifest of the prepared folder lists as it is, and that is not to be overwritten."""
        found = {path: data for path, data in look(self.root).items() if isinstance(data, bytes)}
        theirs = {"mine", "sub2/mine", "same", "edited"} - set(self.kind.overwritten)
        return {path: data for path, data in found.items() if path in theirs}


@dataclass
class Ground:
    """Fresh copies of one prepared folder, how it looked before, and how it must look afterwards."""

    kind: Kind
    folders: Iterator[Folder]
    before: dict[str, object]
    after: dict[str, object]
    theirs: dict[str, bytes]


@pytest.fixture(params=KINDS)
def ground(request: pytest.FixtureRequest, quick_path: Path) -> Ground:
    kind = KINDS[request.param]
    template = quick_path / "template"
    template.mkdir()
    storage = VFSStorage("archive", template)
    kind.prepare(storage, template)
    asyncio.run(NEW.stage(storage, kind.path))

    def copies() -> Iterator[Folder]:
        for number in itertools.count():
            root = quick_path / f"copy{number}"
            shutil.copytree(template, root, symlinks=True)
            yield Folder(kind, root)
            shutil.rmtree(root)

    folders = copies()
    witness = next(folders)
    before, theirs = look(witness.root), witness.users_files()
    witness.publish_again()
    return Ground(kind, folders, before, look(witness.root), theirs)


def outcome(work: Coroutine[Any, Any, object]) -> StorageError | None:
    try:
        asyncio.run(work)
    except StorageError as error:
        return error
    return None


def assert_nothing_half_done(ground: Ground, folder: Folder) -> None:
    assert folder.users_files() == ground.theirs
    if ground.kind.atomic:
        assert look(folder.root) in (ground.before, ground.after)


@pytest.mark.parametrize("renameat2", [True, False], ids=["renameat2", "without renameat2"])
@pytest.mark.parametrize("every", A_THIRD)
def test_killed_at_any_change_it_is_rolled_forward(ground: Ground, renameat2: bool, every: int) -> None:
    for number in itertools.count(1 + turn(every), every):
        folder = next(ground.folders)
        status = dying_at(number, folder.publish, renameat2=renameat2)
        if renameat2:
            assert_nothing_half_done(ground, folder)
        folder.publish_again()
        assert look(folder.root) == ground.after, number
        if status != KILLED:
            break
    assert status == 0
    assert number > 20


@pytest.mark.parametrize("renameat2", [True, False], ids=["renameat2", "without renameat2"])
@pytest.mark.parametrize("every", A_THIRD)
def test_killed_at_any_change_it_is_given_back(ground: Ground, renameat2: bool, every: int) -> None:
    for number in itertools.count(1 + turn(every), every):
        folder = next(ground.folders)
        status = dying_at(number, folder.publish, renameat2=renameat2)
        asyncio.run(folder.discard())
        found = look(folder.root)
        if not renameat2 and found != ground.after:
            # Where a folder cannot be renamed without replacing, an empty one is made first and may be left.
            found = {path: kind for path, kind in found.items() if kind != "folder" or path in ground.before}
        assert found in (ground.before, ground.after), number
        assert not any((folder.root / ".staging").iterdir())
        if status != KILLED:
            break
    assert found == ground.after


def test_killed_twice_it_is_still_rolled_forward(ground: Ground) -> None:
    for number in itertools.count(4, 7):
        folder = next(ground.folders)
        status = dying_at(number, folder.publish)
        for again in (2, 5, 9):
            dying_at(again, folder.publish)
        folder.publish_again()
        assert look(folder.root) == ground.after, number
        if status != KILLED:
            break


@pytest.mark.parametrize("renameat2", [True, False], ids=["renameat2", "without renameat2"])
@pytest.mark.parametrize("every", A_THIRD)
def test_an_error_at_any_change_leaves_it_as_it_was(
    ground: Ground, renameat2: bool, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = 0
    for number in itertools.count(1 + turn(every), every):
        folder = next(ground.folders)
        with monkeypatch.context() as patch:
            faults = Faults(number, fail, renameat2=renameat2).install(patch)
            error = outcome(folder.publish())
        if error is None:  # at most the tidying after the commit is missing
            assert ground.after.items() <= look(folder.root).items(), number
        else:
            failed += 1
            assert "EIO" in error.message
            assert str(folder.root) not in error.message
            assert look(folder.root) == ground.before, number
        folder.publish_again()
        assert look(folder.root) == ground.after, number
        if faults.count < number:
            break
    assert failed * every > 15


def test_a_disk_that_dies_for_good_loses_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, recover in itertools.product(range(1, 60, 4), ("publish", "discard")):
        folder = next(ground.folders)
        with monkeypatch.context() as patch:
            Faults(number, fail, for_good=True).install(patch)
            outcome(folder.publish())
            outcome(folder.discard())
        if recover == "publish":
            folder.publish_again()
            assert look(folder.root) == ground.after, number
        else:
            asyncio.run(folder.discard())
            assert look(folder.root) in (ground.before, ground.after), number
        assert folder.users_files() == ground.theirs
