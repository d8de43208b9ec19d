"""A whole process that brings a model dies, or meets an error, at the N-th change that any of its threads makes.

`test_publish_crashes` does the like for each single call that the code makes; here are the calls that the kernel sees.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.volumes import writer
from tests.storages.models import FAIL, Model, look, put
from tests.storages.pieces import PIECE
from tests.storages.strace import Outcome, calls_of, needs_strace, struck_at, turn

pytestmark = [needs_strace, pytest.mark.usefixtures("small_pieces")]

MODEL = Model({"config.json": b"{}", "weights/a.bin": b"w" * (2 * PIECE + 5), "readme": b"r"})
USERS = {"mine": b"m", "weights/mine": b"m2"}
CODES = {"ENOSPC": "DISK_FULL", "EDQUOT": "QUOTA_EXCEEDED", "EIO": "STORAGE_IO"}
EVERY_NTH = [pytest.param(7, id="a seventh"), pytest.param(1, id="all", marks=pytest.mark.soak)]


class Ground:
    """A folder with the user's files, and how it looks after an import to `path`."""

    def __init__(self, at: Path, path: str) -> None:
        self.root = at / "root"
        self.log = at / "log"
        self.path = path
        put(self.root, USERS)
        self.before = look(self.root)
        asyncio.run(self.bring())
        self.after = look(self.root)

    @property
    def atomic(self) -> bool:
        return self.path != "/"

    def fresh(self) -> None:
        shutil.rmtree(self.root)
        put(self.root, USERS)

    async def bring(self) -> None:
        await MODEL.bring(VFSStorage("archive", self.root), self.path)

    async def go_on(self) -> None:
        """Do what a worker does that finds the import begun."""
        storage = VFSStorage("archive", self.root)
        if await storage.publishing(MODEL.task_id):
            await storage.publish(MODEL.plan(self.path), MODEL.staged(), FAIL)
            await (await storage.open_staging(MODEL.task_id)).discard()
        else:
            await self.bring()

    def sweep(self, step: int, strike: str, check: Callable[[Outcome], None]) -> None:
        """Strike at one call after the other, and see that a second import puts all right."""
        self.fresh()
        calls = calls_of(self.bring, self.log)
        chosen = calls[turn(step) :: step]
        struck = 0
        for call in chosen:
            self.fresh()
            outcome = struck_at(call, strike, self.bring, self.log)
            found = look(self.root)
            assert USERS.items() <= found.items()
            if self.atomic:
                assert found in (self.before, self.after), (call, outcome.story)
            check(outcome)
            asyncio.run(self.go_on())
            assert look(self.root) == self.after, call
            assert not [path for path in (self.root / ".staging").rglob("*") if path.is_file()]
            struck += outcome.struck
        assert len(calls) > 60
        assert struck > 0.9 * len(chosen)


@pytest.fixture(params=["new/path", "/"], ids=["a new path", "a merge"])
def ground(request: pytest.FixtureRequest, quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setattr(writer, "_SYNC", PIECE)
    return Ground(quick_path, request.param)


@pytest.mark.parametrize("step", EVERY_NTH)
def test_killed_at_any_call_it_is_brought_to_its_end(ground: Ground, step: int) -> None:
    def check(outcome: Outcome) -> None:
        assert outcome.killed == outcome.struck, outcome.story

    ground.sweep(step, "signal=KILL", check)


@pytest.mark.parametrize("step", EVERY_NTH)
@pytest.mark.parametrize("name", CODES)
def test_an_error_of_any_call_is_said_and_leaves_it_as_it_was(ground: Ground, name: str, step: int) -> None:
    def check(outcome: Outcome) -> None:
        assert outcome.error in {"", CODES[name]}, outcome.story
        # An error may also be one of the tidying after the commit.
        assert look(ground.root) in (ground.after, *([ground.before] if outcome.error else [])), outcome.story

    ground.sweep(step, f"error={name}", check)
