"""Virtual folders: rows here, bytes at the proxy."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from uuid import UUID, uuid4

import structlog
from sqlalchemy import exists, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from manager.access import (
    CREATE_VFOLDER,
    NO_SUCH_VFOLDER,
    DeletableVFolder,
    deletable_vfolder,
    host_allows,
    require_project_member,
    visible_vfolders,
)
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database
from manager.models import Project, VFolder, VFolderOwnershipType, VFolderStatus, VFolderUsageMode
from manager.settings import Settings
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    PathRefused,
    StowageError,
    Unauthenticated,
    Unavailable,
)

log = structlog.get_logger()

# Letters and digits of any script (`\w` without the underscore's special place), dots, hyphens, underscores.
_NAME = re.compile(r"(?!\.)(?!.*\.\.)[\w.-]{1,64}")
# Seconds that a request waits for a deletion; the reconciler sees to one that takes longer.
DELETE_DEADLINE = 5.0
# What each outcome of a deletion may follow: one that was asked for twice never goes back.
_BEGUN = (VFolderStatus.DELETE_PENDING, VFolderStatus.DELETE_ONGOING)
_FOLLOWS = {
    VFolderStatus.DELETE_PENDING: (VFolderStatus.DELETE_ONGOING,),
    VFolderStatus.DELETE_ERROR: _BEGUN,
    VFolderStatus.DELETE_COMPLETE: (*_BEGUN, VFolderStatus.DELETE_ERROR),
}


class VFolders:
    """Makes and deletes vfolders and looks into them, through their proxies."""

    def __init__(
        self, database: Database, settings: Settings, proxies: Mapping[str, StorageProxyClient]
    ) -> None:
        self._database = database
        self._settings = settings
        self._proxies = proxies

    async def create(
        self,
        caller: Caller,
        *,
        name: str,
        usage_mode: VFolderUsageMode,
        host: str | None,
        project_id: UUID | None,
    ) -> VFolder:
        """Make a folder of the caller's, or of a project's; on the default host where `host` is None.

        The directory comes first and the row last, so that nobody meets a folder that is half there. A proxy
        that refuses or does not answer raises `Unavailable`, and the same request may be repeated; a crash in
        between leaves an empty directory that has no name.
        """
        if _NAME.fullmatch(name) is None:
            raise BadRequest(
                "a folder's name has 1 to 64 letters, digits, dots, hyphens or underscores, begins with no dot "
                "and holds no '..'; choose another one",
                field="input.name",
            )
        if host is None:
            if self._settings.vfolder is None:
                raise BadRequest(f"there is no default host; {_ONE_OF_THE_HOSTS}", field="input.host")
            host = self._settings.vfolder.default_host
        client, volume = self._place(host, field="input.host")
        folder = VFolder(
            id=uuid4(),
            name=name,
            host=host,
            usage_mode=usage_mode,
            ownership_type=VFolderOwnershipType.USER if project_id is None else VFolderOwnershipType.GROUP,
            user_id=caller.user_id if project_id is None else None,
            project_id=project_id,
            creator_id=caller.user_id,
        )
        vfid = wire.VFolderID.parse(folder.vfid)
        async with self._database.read() as session:
            await self._may_create(session, caller, folder)
        try:
            await client.create_vfolder(volume, vfid)
        except StowageError as exc:
            log.warning("vfolder not made", host=host, code=exc.code, reason=exc.message)
            raise Unavailable(
                f"the host {host} did not make the folder ({exc.message}); try again in a moment"
            ) from exc
        try:
            async with self._database.begin() as session:
                folder.project = await self._may_create(session, caller, folder, lock=True)
                session.add(folder)
                audit(session, caller, "vfolder.create", str(folder.id), {"name": name, "host": host})
        except (StowageError, IntegrityError) as exc:
            with suppress(StowageError):
                await client.delete_vfolder(volume, vfid)
            if isinstance(exc, IntegrityError):
                raise _name_taken(name) from exc
            raise
        return folder

    async def _may_create(
        self, session: AsyncSession, caller: Caller, folder: VFolder, *, lock: bool = False
    ) -> Project | None:
        project = None
        if folder.project_id is not None:
            project = await require_project_member(session, caller, folder.project_id, lock=lock)
        taken = exists().where(
            VFolder.name == folder.name,
            VFolder.user_id == folder.user_id if project is None else VFolder.project_id == folder.project_id,
            VFolder.status.not_like("DELETE%"),
        )
        allowed, name_taken = (
            await session.execute(select(host_allows(caller, folder.host, CREATE_VFOLDER), taken))
        ).one()
        if not allowed:
            raise Forbidden(
                f"the host {folder.host} does not let you make folders; choose another one",
                field="input.host",
            )
        if name_taken:
            raise _name_taken(folder.name)
        return project

    async def delete(self, caller: Caller, vfolder_id: UUID) -> DeletableVFolder:
        """Delete a folder with everything in it; may be repeated until it is gone.

        At once the folder takes no imports any more and its name is free. A proxy that does not answer within
        seconds leaves it DELETE_PENDING, and the reconciler goes on.

        Returns the folder as it stands then. Raises what `deletable_vfolder` does, with nothing changed, and the
        proxy's refusal, which leaves the folder in DELETE_ERROR.
        """
        async with self._database.begin() as session:
            deletable = await deletable_vfolder(session, caller, vfolder_id)
            folder = deletable.vfolder
            proxy = folder.host.partition(":")[0]
            if (client := self._proxies.get(proxy)) is None:
                raise Conflict(
                    f"the storage proxy {proxy} of this folder is not in the manager's configuration; "
                    "ask the operator to add it",
                    field="input.vfolderId",
                )
            if folder.status not in _BEGUN:
                details = {"name": folder.name, "host": folder.host}
                audit(session, caller, "vfolder.delete", str(vfolder_id), details)
            folder.status = VFolderStatus.DELETE_ONGOING
        try:
            await delete_at_proxy(self._database, client, folder, deadline=DELETE_DEADLINE)
        except Unavailable as exc:
            log.warning("deletion left to the reconciler", vfolder_id=str(vfolder_id), reason=exc.message)
            await _record(self._database, folder, VFolderStatus.DELETE_PENDING)
        except StowageError as exc:
            raise type(exc)(
                f"the host {folder.host} did not delete the folder ({exc.message}); delete it again later"
            ) from exc
        return deletable

    async def files(self, caller: Caller, vfolder_id: UUID, path: str | None) -> list[wire.VFolderFile]:
        """List the entries directly in a directory of the folder, its root where `path` is None or "/"."""
        async with self._database.read() as session:
            found = (await session.execute(visible_vfolders(caller).where(VFolder.id == vfolder_id))).first()
        if found is None:
            raise NotFound(NO_SUCH_VFOLDER, field="vfolderId")
        folder = found[0]
        client, volume = self._place(folder.host, field="vfolderId")
        asked = "" if path in {None, "/"} else str(path)
        try:
            return await client.vfolder_files(volume, wire.VFolderID.parse(folder.vfid), asked)
        except (BadRequest, PathRefused, NotFound) as exc:
            raise type(exc)(exc.message, field="path") from exc

    async def models(self, vfolder: VFolder) -> list[wire.VFolderModel]:
        """Return what the manifests in the folder tell, sorted by path. Raises `Unavailable` as `usage` does."""
        client, volume = self._place(vfolder.host, field="vfolderId")
        return await client.vfolder_models(volume, wire.VFolderID.parse(vfolder.vfid))

    async def usage(self, vfolder: VFolder) -> wire.VFolderUsage:
        """Return bytes and files in the folder. Raises `Unavailable` where its proxy does not answer."""
        client, volume = self._place(vfolder.host, field="vfolderId")
        return await client.vfolder_usage(volume, wire.VFolderID.parse(vfolder.vfid))

    async def volumes(self, caller: Caller) -> list[tuple[str, wire.VolumeInfo]]:
        """Return the hosts on which the caller may make folders, sorted, each with its volume.

        A proxy that does not answer is left out.
        """
        names = sorted(self._proxies)
        answers = await asyncio.gather(*(self._volumes_of(name) for name in names))
        hosts = {
            f"{name}:{volume.name}": volume
            for name, found in zip(names, answers, strict=True)
            for volume in found
        }
        if not hosts:
            return []
        async with self._database.read() as session:
            asked = select(*(host_allows(caller, host, CREATE_VFOLDER) for host in hosts))
            allowed = (await session.execute(asked)).one()
        return sorted(
            ((host, volume) for (host, volume), may in zip(hosts.items(), allowed, strict=True) if may),
            key=lambda found: found[0],
        )

    async def _volumes_of(self, name: str) -> list[wire.VolumeInfo]:
        try:
            return await self._proxies[name].volumes()
        except StowageError as exc:
            log.warning("volumes not listed", proxy=name, code=exc.code, reason=exc.message)
            return []

    def _place(self, host: str, *, field: str) -> tuple[StorageProxyClient, str]:
        proxy, _, volume = host.partition(":")
        if (client := self._proxies.get(proxy)) is None or re.fullmatch(wire.NAME_PATTERN, volume) is None:
            raise BadRequest(f"there is no such host; {_ONE_OF_THE_HOSTS}", field=field)
        return client, volume


_ONE_OF_THE_HOSTS = "name one of the list of volumes, as PROXY:VOLUME"


def _name_taken(name: str) -> Conflict:
    return Conflict(f"there is a folder {name} already; choose another name", field="input.name")


async def delete_at_proxy(
    database: Database, client: StorageProxyClient, folder: VFolder, *, deadline: float | None = None
) -> None:
    """Delete a folder's files at its proxy and record it; may be repeated, also side by side.

    Raises `Unavailable`, with nothing recorded, where the proxy gave no answer that counts (within `deadline`
    seconds), and the proxy's refusal after the folder's status became DELETE_ERROR.
    """
    volume = folder.host.partition(":")[2]
    try:
        async with asyncio.timeout(deadline):
            await client.delete_vfolder(volume, wire.VFolderID.parse(folder.vfid))
    except TimeoutError as exc:
        raise Unavailable(f"storage proxy {client.name} is slow to answer") from exc
    except Unauthenticated as exc:
        raise Unavailable(exc.message) from exc
    except Unavailable:
        raise
    except StowageError as exc:
        log.warning("folder not deleted", vfolder_id=str(folder.id), code=exc.code, reason=exc.message)
        await _record(database, folder, VFolderStatus.DELETE_ERROR)
        raise
    await _record(database, folder, VFolderStatus.DELETE_COMPLETE)


async def _record(database: Database, folder: VFolder, status: VFolderStatus) -> None:
    async with database.begin() as session:
        await session.execute(
            update(VFolder)
            .where(VFolder.id == folder.id, VFolder.status.in_(_FOLLOWS[status]))
            .values(status=status)
            .execution_options(synchronize_session=False)
        )
        # Somebody else who asked for the same may have been quicker.
        now = await session.execute(select(VFolder.status).where(VFolder.id == folder.id))
        folder.status = now.scalar_one()
