"""What may be done on a vfolder host: by everybody, by a user, by a project's members."""

import re
from collections.abc import Iterable, Mapping
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from manager.access import CREATE_VFOLDER, DELETE_VFOLDER, DOWNLOAD_FILE, UPLOAD_FILE, require_admin
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database
from manager.models import HostPermission, Project, User
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import BadRequest, NotFound

HOST_PERMISSIONS = (CREATE_VFOLDER, UPLOAD_FILE, DOWNLOAD_FILE, DELETE_VFOLDER)


class Hosts:
    """Gives and takes permissions on hosts; only administrators may."""

    def __init__(self, database: Database, proxies: Mapping[str, StorageProxyClient]) -> None:
        self._database = database
        self._proxies = proxies

    async def grant(
        self,
        caller: Caller,
        host: str,
        permissions: Iterable[str],
        *,
        user_id: UUID | None = None,
        project_id: UUID | None = None,
    ) -> HostPermission:
        """Permit more on a host, to everybody where neither user nor project is named; may be repeated."""
        return await self._change(caller, host, user_id, project_id, given=frozenset(permissions))

    async def revoke(
        self,
        caller: Caller,
        host: str,
        permissions: Iterable[str],
        *,
        user_id: UUID | None = None,
        project_id: UUID | None = None,
    ) -> HostPermission:
        """Take back what was permitted to exactly these; may be repeated.

        A row that permits nothing stays: a host of which no row speaks gets its first permissions at a start.
        """
        return await self._change(caller, host, user_id, project_id, taken=frozenset(permissions))

    async def _change(
        self,
        caller: Caller,
        host: str,
        user_id: UUID | None,
        project_id: UUID | None,
        *,
        given: frozenset[str] = frozenset(),
        taken: frozenset[str] = frozenset(),
    ) -> HostPermission:
        await require_admin(caller)
        check_host(host, self._proxies, field="input.host")
        if user_id is not None and project_id is not None:
            raise BadRequest(
                "a permission is a user's, a project's or everybody's; leave one of them out",
                field="input.projectId",
            )
        if not given and not taken:
            raise BadRequest("the list is empty; name at least one permission", field="input.permissions")
        async with self._database.begin() as session:
            await _insist(session, user_id, project_id)
            whose = {"host": host, "user_id": user_id, "project_id": project_id}
            await session.execute(
                insert(HostPermission)
                .values(id=uuid4(), permissions=[], **whose)
                .on_conflict_do_nothing(
                    index_elements=[
                        HostPermission.host,
                        HostPermission.user_id,
                        HostPermission.project_id,
                    ]
                )
            )
            row = (
                await session.scalars(
                    select(HostPermission)
                    .where(
                        HostPermission.host == host,
                        HostPermission.user_id.is_not_distinct_from(user_id),
                        HostPermission.project_id.is_not_distinct_from(project_id),
                    )
                    .with_for_update()
                )
            ).one()
            after = [each for each in HOST_PERMISSIONS if each in (given | set(row.permissions)) - taken]
            if set(after) != set(row.permissions):
                row.permissions = after
                audit(
                    session,
                    caller,
                    "host.grant" if given else "host.revoke",
                    host,
                    {
                        "user": None if user_id is None else str(user_id),
                        "project": None if project_id is None else str(project_id),
                        "permissions": sorted(given | taken),
                    },
                )
        return row


def check_host(host: str, proxies: Mapping[str, StorageProxyClient], *, field: str) -> tuple[str, str]:
    """Return proxy and volume of a host. Raises `BadRequest` for one whose proxy is not in the configuration."""
    proxy, _, volume = host.partition(":")
    if proxy not in proxies or re.fullmatch(wire.NAME_PATTERN, volume) is None:
        raise BadRequest(
            f"there is no host {host[:80]!r}; name one as PROXY:VOLUME, the proxy being one of "
            f"{', '.join(sorted(proxies))}",
            field=field,
        )
    return proxy, volume


async def _insist(session: AsyncSession, user_id: UUID | None, project_id: UUID | None) -> None:
    if user_id is not None and await session.get(User, user_id) is None:
        raise NotFound("there is no such user; check the id", field="input.userId")
    if project_id is not None:
        project = await session.scalar(
            select(Project.id)
            .where(Project.id == project_id, Project.deleted_at.is_(None))
            .with_for_update(read=True, key_share=True)
        )
        if project is None:
            raise NotFound("there is no such project; check the id", field="input.projectId")
