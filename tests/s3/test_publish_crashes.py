"""Death and loss at every single request of a publish that changes the bucket.

What follows must end as if nothing had happened.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from uuid import uuid4

import pytest

from proxy_client.errors import StorageError
from storage_proxy.storages.object import ObjectStorage
from tests.s3.place import Bucket, bucket_of
from tests.s3.requests import Watch, die, lose
from tests.s3.server import S3Server
from tests.storages.faults import KILLED, in_child
from tests.storages.models import FAIL, Model, write
from tests.storages.strace import turn

CHANGES = {True: 10, False: 13}  # at least so many does a publish make: by uploads, by pieces
BIG = b"b" * (8 << 20) + b"ig"
OLD = Model({"config.json": b"old", "gone/deep": b"g", "kept": b"k"}, revision="v1")
NEW = Model({"config.json": b"new", "sub/added": b"a", "kept": b"k", "big": BIG}, revision="v2")
USERS = {"a/mine": b"m", "ab": b"sibling"}


class Ground:
    """A bucket with an older revision and the user's files, where a newer one is staged; `direct`: large files by uploads."""

    def __init__(self, server: S3Server, place: Bucket, direct: bool) -> None:
        self.server = server
        self.place = place
        self.direct = direct
        self.model = replace(NEW, task_id=uuid4())
        asyncio.run(place.put(USERS))
        asyncio.run(OLD.bring(place.storage, "a"))
        self.before = place.look()
        asyncio.run(self.stage())

    async def stage(self) -> None:
        plan = self.model.plan("a")
        assert isinstance(self.place.storage, ObjectStorage)
        staging = await self.place.storage.open_staging(
            self.model.task_id, destination="a" if self.direct else None
        )
        await staging.save_plan(plan)
        for file in plan.files:
            if file.path != "kept":
                await asyncio.to_thread(write, staging, file, self.model.files[file.path])

    async def publish(self) -> object:
        return await self.place.storage.publish(self.model.plan("a"), self.model.staged("kept"), FAIL)

    def publish_and_die(self, at: int) -> int:
        """Publish in a process that dies when the N-th change is answered; return its exit status."""

        async def publish() -> None:
            # The parent's threads and connections did not come along.
            self.place.storage = ObjectStorage("bucket", self.place.section, lambda: self.server.credentials)
            with pytest.MonkeyPatch.context() as monkeypatch:
                Watch(at, die).install(monkeypatch)
                await self.publish()

        return in_child(publish)

    async def discard(self) -> None:
        storage = self.place.storage
        assert isinstance(storage, ObjectStorage)
        await (await storage.open_staging(self.model.task_id)).discard()
        await storage.remove_abandoned([])  # an upload whose id was lost before anybody wrote it down

    def insist_on_nothing_staged(self) -> None:
        asyncio.run(self.discard())
        assert self.place.staged() == []

    def insist_on_after(self) -> None:
        found = self.place.look()
        inside = {path.removeprefix("a/"): data for path, data in found.items() if ".stowage" not in path}
        assert inside == {**self.model.files, "mine": b"m", "ab": b"sibling"}
        assert [path for path in found if ".stowage" in path] == ["a/.stowage/org%2Fmodel@v2.json"]

    @property
    def committed(self) -> bool:
        return "a/.stowage/org%2Fmodel@v2.json" in self.place.look()


class Grounds:
    """Fresh ones, each in a folder of its own; `one`: for one strike, another every day, else for each in turn."""

    def __init__(self, server: S3Server, *, direct: bool, one: bool) -> None:
        self.server = server
        self.direct = direct
        self.one = one
        self.changes = CHANGES[direct]

    def __iter__(self) -> Iterator[tuple[Ground, int]]:
        """Yield a ground with the number of the change to strike at, which may be more than there are."""
        with bucket_of(self.server) as whole:
            for at in [turn(self.changes) + 1] if self.one else count(1):
                prefix = f"run-{at}"
                settings = {"part_size": 8 << 20, "parallel_parts": 1, "retries": 0, "prefix": prefix}
                section = whole.section.model_copy(update={**settings, "abandoned_after": -2.0})
                storage = ObjectStorage("bucket", section, lambda: self.server.credentials)
                yield Ground(self.server, Bucket(storage, whole.client, prefix, section), self.direct), at
                storage.client.close()


@pytest.fixture(
    params=[
        pytest.param((None, True), id="one"),
        pytest.param((True, False), id="all by uploads", marks=pytest.mark.soak),
        pytest.param((False, False), id="all by pieces", marks=pytest.mark.soak),
    ]
)
def grounds(request: pytest.FixtureRequest, s3_server: S3Server) -> Grounds:
    direct, one = request.param
    return Grounds(s3_server, direct=bool(turn(2)) if direct is None else direct, one=one)


def test_a_killed_publish_is_rolled_forward(grounds: Grounds) -> None:
    for ground, at in grounds:
        status = ground.publish_and_die(at)
        asyncio.run(ground.publish())
        ground.insist_on_after()
        ground.insist_on_nothing_staged()
        if status == 0:
            break
        assert status == KILLED
    assert at > grounds.changes or status == KILLED


def test_a_killed_publish_that_is_discarded_was_never_there(grounds: Grounds) -> None:
    for ground, at in grounds:
        status = ground.publish_and_die(at)
        committed = ground.committed
        ground.insist_on_nothing_staged()
        if committed:
            assert ground.committed
        else:
            assert ground.place.look() == ground.before
        if status == 0:
            break


@pytest.mark.parametrize("for_good", [False, True], ids=["an answer is lost", "the server is lost"])
def test_a_publish_that_fails_is_taken_back(grounds: Grounds, for_good: bool) -> None:
    for ground, at in grounds:
        failed = False
        with pytest.MonkeyPatch.context() as patch:
            watch = Watch(at, lose, for_good=for_good).install(patch)
            try:
                asyncio.run(ground.publish())
            except StorageError:
                failed = True
        if failed and not for_good:
            assert ground.place.look() == ground.before
        asyncio.run(ground.publish())
        ground.insist_on_after()
        ground.insist_on_nothing_staged()
        if watch.changes < at:
            break
