"""P8: no file of the user's is changed or removed by an import, a cancel, a failure or a clean-up.

A user and imports of two models, each in three revisions, work in one folder, in any order that Hypothesis thinks of;
imports are cancelled, fail, and die at any change. A dictionary knows which files are the user's.
"""

import asyncio
import os
import shutil
from collections.abc import Coroutine
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy_client.errors import DestinationConflict, StorageError
from storage_proxy.storages.base import Manifest
from storage_proxy.storages.vfs import VFSStorage
from tests.storages.faults import Faults, dying_at, fail
from tests.storages.models import FAIL, Model, look, sha256

NAMES = ["a", "dir/a", "dir/b", "dir/sub/a"]
CONTENTS = [b"1", b"2"]
PATHS = ["/", "org/model/main"]
FOLDERS = ["", "org/model/main"]

names = st.sampled_from(NAMES)
contents = st.sampled_from(CONTENTS)
trees = st.dictionaries(names, contents, min_size=1, max_size=3)
numbers = st.integers(0, 5)
paths = st.sampled_from(PATHS)
steps = st.integers(1, 60)


class Folder(RuleBasedStateMachine):
    """`theirs` holds each file of the user's; `models` what each model's last import put where."""

    @initialize(revisions=st.lists(trees, min_size=6, max_size=6))
    def begin(self, revisions: list[dict[str, bytes]]) -> None:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 -- a name of our own below it
        self.root = Path(mkdtemp(dir=memory, prefix="stowage-test-"))
        self.storage = VFSStorage("archive", self.root)
        self.revisions = revisions
        self.theirs: dict[str, bytes] = {}

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    # The user.

    @rule(folder=st.sampled_from(FOLDERS), name=names, data=contents)
    def write(self, folder: str, name: str, data: bytes) -> None:
        path = self.root / folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            return
        # The very bytes that were imported there: nobody can tell that the user wrote them.
        if self._imported(path, data):
            self.theirs.pop(str(path), None)
        else:
            self.theirs[str(path)] = data

    def _imported(self, path: Path, data: bytes) -> bool:
        for folder in FOLDERS:
            for text in (self.root / folder / ".stowage").glob("*.json"):
                for file in Manifest.model_validate_json(text.read_bytes()).files:
                    if self.root / folder / file.path == path and file.sha256 == sha256(data):
                        return not file.preexisting
        return False

    @rule(number=numbers, path=paths)
    def write_what_a_model_has(self, number: int, path: str) -> None:
        name, data = next(iter(self.revisions[number].items()))
        self.write(path.strip("/"), name, data)

    @rule(folder=st.sampled_from(FOLDERS), name=names)
    def remove(self, folder: str, name: str) -> None:
        path = self.root / folder / name
        if path.is_file() and not path.is_symlink():
            path.unlink()
            self.theirs.pop(str(path), None)

    # The imports.

    def _model(self, number: int) -> Model:
        return Model(
            self.revisions[number],
            model_id=f"org/model{number % 2}",
            revision=f"v{number // 2 % 2}",
            task_id=uuid4(),
        )

    def _run(self, work: Coroutine[Any, Any, object]) -> StorageError | None:
        try:
            asyncio.run(work)
        except StorageError as error:
            return error
        return None

    @rule(number=numbers, path=paths)
    def bring(self, number: int, path: str) -> None:
        model = self._model(number)
        before = look(self.root)
        error = self._run(model.bring(self.storage, path, FAIL))
        if error is not None:
            assert isinstance(error, DestinationConflict)
            assert look(self.root) == before
            return
        for name, data in model.files.items():
            assert (self.root / path.strip("/") / name).read_bytes() == data

    @rule(number=numbers, path=paths)
    def cancel(self, number: int, path: str) -> None:
        model, before = self._model(number), look(self.root)
        asyncio.run(model.stage(self.storage, path))
        asyncio.run(self._discard(model))
        assert look(self.root) == before

    @rule(number=numbers, path=paths, step=steps)
    def fail(self, number: int, path: str, step: int) -> None:
        model, before = self._model(number), look(self.root)
        asyncio.run(model.stage(self.storage, path))
        with pytest.MonkeyPatch.context() as monkeypatch:
            Faults(step, fail).install(monkeypatch)
            error = self._run(self.storage.publish(model.plan(path), model.staged(), FAIL))
        asyncio.run(self._discard(model))
        if error is not None:
            assert look(self.root) == before

    @rule(number=numbers, path=paths, step=steps, again=st.booleans())
    def die(self, number: int, path: str, step: int, again: bool) -> None:
        model, before = self._model(number), look(self.root)
        asyncio.run(model.stage(self.storage, path))

        async def publish() -> None:
            try:
                await self.storage.publish(model.plan(path), model.staged(), FAIL)
            except DestinationConflict:
                return

        dying_at(step, publish)
        if again:
            asyncio.run(publish())
        asyncio.run(self._discard(model))
        after = look(self.root)
        if after != before:
            for name, data in model.files.items():
                assert (self.root / path.strip("/") / name).read_bytes() == data

    async def _discard(self, model: Model) -> None:
        await (await self.storage.open_staging(model.task_id)).discard()

    # The promise.

    @invariant()
    def the_users_files_are_as_the_user_left_them(self) -> None:
        for path, data in getattr(self, "theirs", {}).items():
            assert Path(path).read_bytes() == data, path

    @invariant()
    def no_staging_is_left(self) -> None:
        if hasattr(self, "root") and (self.root / ".staging").exists():
            assert not any((self.root / ".staging").iterdir())


TestFolder = Folder.TestCase
TestFolder.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


@pytest.mark.soak
class TestFolderForLong(Folder.TestCase):
    settings = settings(max_examples=1000, stateful_step_count=25, deadline=None)
