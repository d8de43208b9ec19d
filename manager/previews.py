"""What an import into a vfolder would bring and meet, before anybody asks for it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from manager.access import writable_vfolder
from manager.auth import Caller
from manager.db import Database
from manager.import_options import check_path, check_source
from manager.imports import default_path, load_revisions
from manager.quota import Quotas
from manager.room import QuotaState
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import Conflict, PathRefused, StowageError, Unavailable

# Seconds that a person waits at a dialog.
DEADLINE = 25.0


@dataclass(frozen=True)
class Preview:
    """What the storage proxy saw at the path, and the room there; nothing is reserved."""

    path: str
    seen: wire.ImportPreview
    quota: QuotaState

    @property
    def fits(self) -> bool:
        """Whether what is missing has room in the quota."""
        return self.quota.available is None or self.seen.missing_bytes <= self.quota.available


class ImportPreviews:
    """Asks storage proxies what an import would meet."""

    def __init__(self, database: Database, quotas: Quotas, proxies: Mapping[str, StorageProxyClient]) -> None:
        self._database = database
        self._quotas = quotas
        self._proxies = proxies

    async def preview(self, caller: Caller, revision_id: UUID, vfolder_id: UUID, path: str | None) -> Preview:
        """Look what importing a revision into a folder would bring and meet, at its default path where `path` is None.

        Changes nothing, and is no promise. Raises what the import itself would, naming the field, and `Unavailable`
        where the folder's proxy does not answer.
        """
        if path is not None:
            check_path(path)
        async with self._database.read() as session:
            folder = await writable_vfolder(session, caller, vfolder_id)
            where = "input.artifactRevisionId"
            (revision,) = await load_revisions(session, [revision_id], field=where)
            check_source(revision.artifact, revision.artifact.origin, where)
        if (client := self._proxies.get(folder.proxy)) is None:
            raise Conflict(
                f"the storage proxy {folder.proxy} of this folder is not in the manager's configuration; "
                "ask the operator to add it",
                field="input.vfolderId",
            )
        chosen = path or default_path(revision)
        order = wire.ImportPreviewOrder(
            registry_name=revision.artifact.origin.name,
            model=wire.ModelRef(
                model_id=revision.artifact.name, revision=revision.version, commit=revision.digest
            ),
            path=chosen,
        )
        vfid = wire.VFolderID.parse(folder.vfolder.vfid)
        quota = asyncio.create_task(self._quotas.of_folder(folder))
        try:
            async with asyncio.timeout(DEADLINE):
                seen = await client.preview_import(folder.volume, vfid, order, request_id=caller.request_id)
            return Preview(chosen, seen, await quota)
        except TimeoutError as exc:
            raise Unavailable(
                f"storage proxy {client.name} is slow to answer; try again in a moment"
            ) from exc
        except PathRefused as exc:
            raise type(exc)(exc.message, field="input.options.path") from exc
        except StowageError as exc:
            raise type(exc)(exc.message) from exc
        finally:
            quota.cancel()
            await asyncio.wait([quota])
