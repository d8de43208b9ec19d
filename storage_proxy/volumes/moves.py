"""The single steps of a merge into a folder that others use too: each can be made, made again, and taken back.

A move never destroys anything. What was in the way waits in the staging area, where the new file was, until the
whole merge is committed. Inodes tell what is already done, so a move needs no note of its own progress.
"""

from contextlib import suppress
from typing import Literal
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict

from storage_proxy.volumes import fsio
from storage_proxy.volumes.paths import shown

log = structlog.get_logger()


class Raced(Exception):
    """Somebody changed the destination while it was being published to; `path` is where."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Move(BaseModel):
    """One step.

    `path` lies in the destination; `source` in the staging area, where the new thing waits and the old one is
    kept. `theirs`: the old one is not this artifact's, so not even a mishap may lose it.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["folder", "add", "replace", "remove"]
    path: str
    source: str
    new: fsio.Identity | None = None
    old: fsio.Identity | None = None
    theirs: bool = False


class Moves:
    """Moves between a staging area and a destination, by their open descriptors."""

    def __init__(self, destination: int, area: int, task_id: UUID) -> None:
        self._destination = destination
        self._area = area
        self._suffix = task_id.hex[:8]

    def _here(self, move: Move) -> fsio.Identity | None:
        return fsio.identity(self._destination, move.path)

    def _waiting(self, move: Move) -> fsio.Identity | None:
        return fsio.identity(self._area, move.source)

    # Forward.

    def make(self, move: Move) -> None:
        """Make a move that may be made, half made or not made. Raises `Raced` where somebody was quicker."""
        make = {"folder": self._folder, "add": self._add, "replace": self._replace, "remove": self._remove}
        try:
            make[move.kind](move)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as exc:
            raise Raced(move.path) from exc

    def _folder(self, move: Move) -> None:
        if not fsio.is_folder(self._destination, move.path):
            try:
                fsio.rename_new(self._area, move.source, self._destination, move.path)
            except FileExistsError:
                if not fsio.is_folder(self._destination, move.path):
                    raise

    def _add(self, move: Move) -> None:
        if not self._is_new(move):
            fsio.rename_new(self._area, move.source, self._destination, move.path)

    def _replace(self, move: Move) -> None:
        fsio.settle_exchange(self._area, move.source)
        if not self._is_new(move):
            if self._here(move) != move.old:
                raise Raced(move.path)
            fsio.exchange(self._area, move.source, self._destination, move.path)
        if self._waiting(move) != move.old:
            raise Raced(move.path)

    def _remove(self, move: Move) -> None:
        # One that somebody changed or removed is theirs now, and no hindrance.
        if self._here(move) == move.old:
            self._take(move, move.old)

    def _is_new(self, move: Move) -> bool:
        here = self._here(move)
        return here is not None and move.new is not None and here.ino == move.new.ino

    def _take(self, move: Move, expected: fsio.Identity | None) -> bool:
        """Move from the destination into the staging area, unless it turns out to be something else."""
        fsio.rename(self._destination, move.path, self._area, move.source)  # nobody else names things there
        if self._waiting(move) == expected:
            return True
        self._put_back(move)
        return False

    def stands(self, move: Move) -> bool:
        """Whether a move that was made is still as it was made, and what it displaced too."""
        if move.kind == "folder":
            return True
        if move.kind == "remove":
            return self._waiting(move) in {None, move.old}
        if move.kind == "replace" and self._waiting(move) != move.old:
            return False
        return self._here(move) == move.new

    # Back.

    def take_back(self, move: Move) -> None:
        """Undo a move that may be made, half made or not made. What somebody changed meanwhile stays theirs."""
        back = {
            "folder": self._folder_back,
            "add": self._add_back,
            "replace": self._replace_back,
            "remove": self._remove_back,
        }
        with suppress(FileNotFoundError, NotADirectoryError):
            back[move.kind](move)

    def _folder_back(self, move: Move) -> None:
        if self._is_new_folder(move):
            fsio.remove_folder(self._destination, move.path)

    def _is_new_folder(self, move: Move) -> bool:
        return fsio.is_folder(self._destination, move.path) and self._is_new(move)

    def _add_back(self, move: Move) -> None:
        if self._here(move) != move.new:
            return
        if self._waiting(move) is not None:  # linked to both places by `rename_new` without RENAME_NOREPLACE
            fsio.unlink(self._area, move.source)
        self._take(move, move.new)

    def _replace_back(self, move: Move) -> None:
        fsio.settle_exchange(self._area, move.source)
        waiting = self._waiting(move)
        if waiting is None or (move.new is not None and waiting.ino == move.new.ino):
            return
        if self._here(move) == move.new:
            fsio.exchange(self._area, move.source, self._destination, move.path)
            if self._waiting(move) == move.new:
                return
            # Somebody replaced it just now; that stays, and what was there before goes beside it.
            fsio.exchange(self._area, move.source, self._destination, move.path)
        self._put_back(move)

    def _remove_back(self, move: Move) -> None:
        if self._waiting(move) is not None:
            self._put_back(move)

    def _put_back(self, move: Move) -> None:
        """Return what waits in the staging area to its place, or beside it if the place is taken.

        An unchanged file of this artifact whose place somebody took is not put beside: nobody misses it.
        """
        try:
            fsio.rename_new(self._area, move.source, self._destination, move.path)
        except FileExistsError:
            if not move.theirs and self._waiting(move) == move.old:
                return
            folder, slash, name = move.path.rpartition("/")
            for count in range(100):
                beside = f"{folder}{slash}{name[:56]}~{self._suffix}" + (f"-{count}" if count else "")
                with suppress(FileExistsError):
                    fsio.rename_new(self._area, move.source, self._destination, beside)
                    log.warning("a file was put back beside its place", path=shown(beside))
                    return
            raise
