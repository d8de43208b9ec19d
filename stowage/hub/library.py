"""The served directory as models and revisions, read in threads and remembered as long as nothing changes."""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

from stowage.hub.content import (
    CLOCK_TICK,
    Content,
    ContentChanged,
    Digest,
    Identity,
    Listing,
    ServedFile,
    list_folder,
    make_content,
    open_served,
    read_digest,
)
from stowage.hub.errors import ContentChanging, EntryNotFound, RepoNotFound, RevisionNotFound
from stowage.hub.layout import Model, model_ids, read_model

ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Revision:
    """A model at one commit."""

    model: Model
    content: Content

    @property
    def headers(self) -> dict[str, str]:
        """The header that every answer about this revision carries."""
        return {"X-Repo-Commit": self.content.commit}


@dataclass(slots=True)
class _Known:
    """What was read of a model: refs and contents, each with the time at which the reading began."""

    model: Model
    model_read_at: float
    contents: dict[str, tuple[float, Content]] = field(default_factory=dict)
    digests: dict[str, dict[str, tuple[Identity, Digest]]] = field(default_factory=dict)
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Library:
    """The models beneath a directory.

    Every question carries `since`, a `time.monotonic()`: what was read before that is read again. Reading again
    costs a stat for each file; a digest is read again only for a file whose inode, size or mtime changed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._known: dict[str, _Known] = {}
        self._digesters = anyio.CapacityLimiter(max(2, os.cpu_count() or 1))

    async def model_ids(self) -> list[str]:
        """Return the ids of all models, in order, those with a wrong layout too."""
        return await anyio.to_thread.run_sync(lambda: list(model_ids(self.directory)))

    async def model(self, model_id: str, *, since: float) -> Model:
        """Return a model with its refs. Raises `RepoNotFound` or `InvalidLayout`."""
        known = self._known.get(model_id)
        if known is not None and known.model_read_at >= since:
            return known.model
        read_at = time.monotonic()
        try:
            model = await anyio.to_thread.run_sync(read_model, self.directory, model_id)
        except RepoNotFound:
            self._known.pop(model_id, None)
            raise
        known = self._known.setdefault(model_id, _Known(model, read_at))
        known.model, known.model_read_at = model, read_at
        return model

    async def content(self, model: Model, folder: str, *, since: float) -> Content:
        """Return what a folder of the model holds. Raises `ContentChanging` where it never stands still."""
        known = self._known.setdefault(model.id, _Known(model, float("-inf")))
        async with known.lock:
            read_at, content = known.contents.get(folder, (float("-inf"), None))
            if content is not None and read_at >= since:
                return content
            for _ in range(ATTEMPTS):
                read_at = time.monotonic()
                try:
                    content = await self._read(model, folder, known.digests.setdefault(folder, {}), content)
                except ContentChanged:
                    await anyio.sleep(CLOCK_TICK / 1e9)
                else:
                    known.contents[folder] = (read_at, content)
                    return content
        raise ContentChanging("The model's files are being changed; try again", {"Retry-After": "1"})

    async def listing(self, model: Model, folder: str) -> Listing:
        """Return what lies in a folder of the model right now, without reading any file."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(ContentChanged):
                return (await anyio.to_thread.run_sync(_list, model, folder))[1]
        raise ContentChanging("The model's files are being changed; try again", {"Retry-After": "1"})

    async def revision(self, model_id: str, name: str, *, since: float) -> Revision:
        """Find a branch, a tag, or a commit that is the content of one of them. Raises `RevisionNotFound`."""
        model = await self.model(model_id, since=since)
        if (folder := model.folder_of(name)) is not None:
            return Revision(model, await self.content(model, folder, since=since))
        if re.fullmatch(r"[0-9a-f]{40}", name):
            for folder in sorted(model.folders):
                content = await self.content(model, folder, since=since)
                if content.commit == name:
                    return Revision(model, content)
        raise RevisionNotFound(f"Invalid rev id: {name[:80]}")

    async def open(
        self, model_id: str, name: str, path: str, *, since: float
    ) -> tuple[Revision, ServedFile, int]:
        """Open a file of a revision for reading; the descriptor is the caller's to close.

        What was read since `since` is trusted, except where the file's own state speaks against it or something
        is missing: then everything is looked at again. Raises `RevisionNotFound` or `EntryNotFound`.
        """
        asked = time.monotonic()
        for _ in range(ATTEMPTS):
            try:
                revision = await self.revision(model_id, name, since=since)
                file = _entry(revision, path)
                descriptor = await anyio.to_thread.run_sync(open_served, file.location, file.identity)
            except (RevisionNotFound, EntryNotFound):
                if since >= asked:
                    raise
                since = asked
            except ContentChanged:
                since = time.monotonic()
            else:
                return revision, file, descriptor
        raise ContentChanging("The model's files are being changed; try again", {"Retry-After": "1"})

    async def _read(
        self,
        model: Model,
        folder: str,
        digests: dict[str, tuple[Identity, Digest]],
        before: Content | None,
    ) -> Content:
        root, listing = await anyio.to_thread.run_sync(_list, model, folder)
        if before is not None and before.is_of(listing):
            return before
        for gone in digests.keys() - listing.files.keys():
            del digests[gone]
        missing = [
            (path, identity)
            for path, identity in listing.files.items()
            if path not in digests or digests[path][0] != identity
        ]
        await self._read_digests(root, missing, digests)
        return await anyio.to_thread.run_sync(
            make_content, root, listing, {path: digest for path, (_, digest) in digests.items()}
        )

    async def _read_digests(
        self, root: Path, missing: list[tuple[str, Identity]], digests: dict[str, tuple[Identity, Digest]]
    ) -> None:
        # The threads take turns at one iterator, and leave what they have found even where one of them fails.
        todo = iter(missing)

        def work(todo: Iterator[tuple[str, Identity]]) -> None:
            for path, identity in todo:
                digests[path] = (identity, read_digest(root / path, identity))

        ends = await asyncio.gather(
            *(
                anyio.to_thread.run_sync(work, todo, limiter=self._digesters)
                for _ in range(min(len(missing), int(self._digesters.total_tokens)))
            ),
            return_exceptions=True,
        )
        for end in ends:
            if isinstance(end, BaseException):
                raise end


def _list(model: Model, folder: str) -> tuple[Path, Listing]:
    root = model.path if folder == "." else model.path / folder
    others = model.folders - {folder}
    if folder != ".":
        others = {other.removeprefix(f"{folder}/") for other in others if other.startswith(f"{folder}/")}
    return root, list_folder(root, without=others)


def _entry(revision: Revision, path: str) -> ServedFile:
    if (file := revision.content.files.get(path)) is None:
        raise EntryNotFound("Entry not found", revision.headers)
    return file
