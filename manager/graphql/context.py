from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver

from manager.approvals import Approvals
from manager.auth import Caller, authenticate
from manager.catalog import Catalog
from manager.changes import Changes
from manager.cleanup import Cleanup
from manager.db import Database
from manager.graphql.loaders import Loaders
from manager.handover import Handover
from manager.hosts import Hosts
from manager.imports import ArtifactRevisionService
from manager.presigned import PresignedURLs
from manager.previews import ImportPreviews
from manager.projects import Projects
from manager.quota import Quotas
from manager.registries import Registries
from manager.settings import Settings
from manager.sharing import Sharing
from manager.storages import Storages
from manager.users import Users
from manager.vault import Vault
from manager.vfolders import VFolders
from manager.waivers import Waivers
from proxy_client.client import StorageProxyClient


class Services:
    """The use cases of one manager process, shared by all requests."""

    def __init__(
        self, database: Database, settings: Settings, proxies: Mapping[str, StorageProxyClient]
    ) -> None:
        self.database = database
        self.introspection = settings.manager.introspection
        self.operation_timeout = settings.manager.operation_timeout
        self.catalog = Catalog(database, settings, proxies)
        self.imports = ArtifactRevisionService(database, settings, proxies)
        vault = Vault(settings)
        self.handover = Handover(database, vault, proxies)
        self.registries = Registries(database, settings, vault, self.handover)
        self.storages = Storages(database, settings, vault, self.handover)
        self.cleanup = Cleanup(database, settings, proxies)
        self.waivers = Waivers(database)
        self.approvals = Approvals(database, proxies)
        self.presigned = PresignedURLs(database, proxies)
        self.vfolders = VFolders(database, settings, proxies)
        self.users = Users(database)
        self.projects = Projects(database)
        self.sharing = Sharing(database)
        self.hosts = Hosts(database, proxies)
        self.quotas = Quotas(database, settings, proxies)
        self.previews = ImportPreviews(database, self.quotas, proxies)
        self.changes = Changes(database)


@dataclass
class Context:
    """What the resolvers of one request share: who calls, the use cases and the loaders."""

    caller: Caller
    services: Services
    loaders: Loaders
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, caller: Caller, services: Services, authorization: str | None = None) -> "Context":
        """Begin a request; `authorization` (the header) is kept where it lasts longer than a look at the token."""
        return cls(caller, services, Loaders(services.database, caller), authorization)

    def forget(self) -> None:
        """Let what follows read anew: what was loaded may have changed since."""
        self.loaders = Loaders(self.services.database, self.caller)

    async def authenticate_again(self) -> None:
        """Look at the token again, and forget what was loaded. Raises `Unauthenticated`."""
        self.caller = await authenticate(self.services.database, self.authorization, self.caller.request_id)
        self.forget()


Info: TypeAlias = strawberry.Info[Context, None]


class FreshLoaders(FieldExtension):
    """Let what follows a mutation read its outcome: the loaders' rows were read before it."""

    async def resolve_async(
        self, next_: AsyncExtensionResolver, source: Any, info: strawberry.Info, **arguments: Any
    ) -> Any:
        """Run the mutation, then forget what was loaded."""
        payload = await next_(source, info, **arguments)
        context: Context = info.context
        context.forget()
        return payload
