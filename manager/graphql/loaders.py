"""Nested rows, loaded in batches: one statement for all rows of a level, each in a session of its own."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select
from strawberry.dataloader import DataLoader

from manager.access import visible_tasks, visible_vfolders
from manager.auth import Caller
from manager.db import Database, any_of
from manager.models import (
    Artifact,
    ArtifactRegistry,
    ArtifactRevision,
    ArtifactStorage,
    ImportTask,
    Project,
    User,
    UserGrant,
    VFolder,
    VFolderPermission,
)
from manager.paging import AnyRow, Order, Page, PageRequest, Statement, count_rows_of, load_pages
from proxy_client.errors import Internal

T = TypeVar("T")
E = TypeVar("E", Artifact, ArtifactRegistry, ArtifactRevision, ArtifactStorage, Project, User)


def kept(row: T | None) -> T:
    """Return what cannot be missing: a foreign key keeps it, or it was made just now."""
    if row is None:
        raise Internal("a row is gone that another one needs")
    return row


@dataclass(frozen=True)
class SeenVFolder:
    """A folder and what the caller may do with it; `visible` is false for one known from a task alone, or deleted."""

    row: VFolder
    permission: VFolderPermission
    visible: bool = True


@dataclass(frozen=True, eq=False)
class NestedList:
    """A list that hangs below each of several parents. Compared by identity: loads of one are batched."""

    statement: Statement
    order: Order
    request: PageRequest
    parent: Any


class Loaders:
    """One set for one request: what it has loaded once it does not load again."""

    def __init__(self, database: Database, caller: Caller) -> None:
        self._database = database
        self._caller = caller
        self.artifacts = DataLoader(self._by_id(Artifact))
        self.registries = DataLoader(self._by_id(ArtifactRegistry))
        self.revisions = DataLoader(self._by_id(ArtifactRevision))
        self.storages = DataLoader(self._by_id(ArtifactStorage))
        self.projects = DataLoader(self._by_id(Project))
        self.users = DataLoader(self._by_id(User))
        self.user_permissions = DataLoader(self._user_permissions)
        self.tasks = DataLoader(self._tasks)
        self.vfolders = DataLoader(self._vfolders)
        self.task_vfolders = DataLoader(self._task_vfolders)
        self._nested: dict[object, NestedList] = {}
        self._pages: dict[NestedList, DataLoader[UUID, Page[AnyRow]]] = {}
        self._counts: dict[NestedList, DataLoader[UUID, int]] = {}

    def _by_id(self, entity: type[E]) -> Callable[[list[UUID]], Awaitable[Sequence[E | None]]]:
        async def load(ids: list[UUID]) -> Sequence[E | None]:
            async with self._database.read() as session:
                rows = {
                    row.id: row
                    for row in await session.scalars(select(entity).where(entity.id == any_of(ids)))
                }
            return [rows.get(each) for each in ids]

        return load

    async def _user_permissions(self, ids: list[UUID]) -> list[list[str]]:
        permissions: dict[UUID, list[str]] = {each: [] for each in ids}
        async with self._database.read() as session:
            for grant in await session.scalars(select(UserGrant).where(UserGrant.user_id == any_of(ids))):
                permissions[grant.user_id].append(grant.permission)
        return [sorted(permissions[each]) for each in ids]

    async def _tasks(self, ids: list[UUID]) -> list[ImportTask | None]:
        async with self._database.read() as session:
            found = await session.scalars(visible_tasks(self._caller).where(ImportTask.id == any_of(ids)))
            rows = {row.id: row for row in found}
        return [rows.get(each) for each in ids]

    async def _vfolders(self, ids: list[UUID]) -> list[SeenVFolder | None]:
        async with self._database.read() as session:
            found = await session.execute(visible_vfolders(self._caller).where(VFolder.id == any_of(ids)))
            rows = {row.id: SeenVFolder(row, permission) for row, permission in found}
        return [rows.get(each) for each in ids]

    async def _task_vfolders(self, ids: list[UUID]) -> list[SeenVFolder]:
        # Who may read a task knows its destination, also after losing the folder: its name stays readable.
        seen = dict(zip(ids, await self._vfolders(ids), strict=True))
        if lost := [each for each, folder in seen.items() if folder is None]:
            async with self._database.read() as session:
                for row in await session.scalars(select(VFolder).where(VFolder.id == any_of(lost))):
                    seen[row.id] = SeenVFolder(row, VFolderPermission.READ_ONLY, visible=False)
        return [folder for folder in seen.values() if folder is not None]

    def nested(self, key: object, make: Callable[[], NestedList]) -> NestedList:
        """Return the list that `key` (a field of the query) stands for; it is made once for all parents."""
        if key not in self._nested:
            self._nested[key] = make()
        return self._nested[key]

    def pages(self, nested: NestedList) -> DataLoader[UUID, Page[AnyRow]]:
        """Return the loader of one page below each parent."""
        if nested not in self._pages:

            async def load(parents: list[UUID]) -> list[Page[AnyRow]]:
                async with self._database.read() as session:
                    pages = await load_pages(
                        session,
                        nested.statement,
                        nested.order,
                        nested.request,
                        parent=nested.parent,
                        parents=parents,
                    )
                return [pages[each] for each in parents]

            self._pages[nested] = DataLoader(load)
        return self._pages[nested]

    def counts(self, nested: NestedList) -> DataLoader[UUID, int]:
        """Return the loader of the number of rows below each parent."""
        if nested not in self._counts:

            async def load(parents: list[UUID]) -> list[int]:
                async with self._database.read() as session:
                    counts = await count_rows_of(
                        session, nested.statement, parent=nested.parent, parents=parents
                    )
                return [counts[each] for each in parents]

            self._counts[nested] = DataLoader(load)
        return self._counts[nested]
