"""The schema, put together."""

from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from manager.graphql.artifacts import ArtifactMutation, ArtifactQuery
from manager.graphql.audit import AuditQuery
from manager.graphql.context import Context
from manager.graphql.errors import ErrorCode, presented
from manager.graphql.hosts import HostMutation, HostQuery
from manager.graphql.lifecycle import LifecycleMutation
from manager.graphql.limits import RequestLimits
from manager.graphql.previews import PreviewQuery
from manager.graphql.projects import ProjectMutation, ProjectQuery
from manager.graphql.quota import QuotaMutation, QuotaQuery
from manager.graphql.registries import RegistryMutation, RegistryQuery
from manager.graphql.remembered import RememberedDocuments
from manager.graphql.scalars import SCALARS
from manager.graphql.sharing import SharingMutation, SharingQuery
from manager.graphql.storages import StorageMutation, StorageQuery
from manager.graphql.subscriptions import Subscription
from manager.graphql.tasks import TaskMutation, TaskQuery
from manager.graphql.users import UserMutation, UserQuery
from manager.graphql.vfolders import VFolderMutation, VFolderQuery
from manager.graphql.waivers import WaiverMutation, WaiverQuery


@strawberry.type(description="What can be asked.")
class Query(
    ArtifactQuery,
    RegistryQuery,
    StorageQuery,
    VFolderQuery,
    TaskQuery,
    UserQuery,
    ProjectQuery,
    SharingQuery,
    HostQuery,
    QuotaQuery,
    PreviewQuery,
    WaiverQuery,
    AuditQuery,
):
    """What can be asked."""


@strawberry.type(description="What can be done.")
class Mutation(
    ArtifactMutation,
    LifecycleMutation,
    RegistryMutation,
    StorageMutation,
    VFolderMutation,
    TaskMutation,
    UserMutation,
    ProjectMutation,
    SharingMutation,
    HostMutation,
    QuotaMutation,
    WaiverMutation,
):
    """What can be done."""


class Schema(strawberry.Schema):
    """The schema, whose errors carry codes."""

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Present the errors in place: every result, whatever stopped it, passes here before it leaves."""
        context: Any = execution_context.context if execution_context else None
        request_id = context.caller.request_id if isinstance(context, Context) else "unknown"
        errors[:] = [presented(error, request_id) for error in errors]


schema = Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=[ErrorCode],
    config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=False),
    extensions=[RequestLimits, RememberedDocuments],
)
