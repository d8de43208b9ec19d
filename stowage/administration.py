"""Who may do what and how much, asked of the manager: sharing, projects, hosts, quotas, and what was done."""

from collections.abc import Iterator
from typing import Any, TypedDict, cast

from proxy_client.errors import Conflict, NotFound
from stowage.client import StowageClient, is_uuid
from stowage.documents import Token, User


class Project(TypedDict):
    """A group of users that owns folders together."""

    id: str
    name: str
    type: str
    createdAt: str


class Invitation(TypedDict):
    """An offer to use somebody else's folder."""

    id: str
    email: str
    permission: str
    state: str
    vfolderName: str
    createdAt: str
    answeredAt: str | None
    inviter: dict[str, str]


class Share(TypedDict):
    """What somebody may do with a folder."""

    user: dict[str, str]
    permission: str


class HostPermission(TypedDict):
    """What may be done on a host by a user, a project's members, or everybody where both are null."""

    id: str
    host: str
    permissions: list[str]
    user: dict[str, str] | None
    project: dict[str, str] | None


class Quota(TypedDict):
    """A limit and what is kept; sizes in bytes."""

    id: str
    host: str | None
    quotaScopeId: str | None
    storageName: str | None
    user: dict[str, str] | None
    project: dict[str, str] | None
    limitBytes: int | None
    usedBytes: int | None
    reservedBytes: int
    availableBytes: int | None
    enforced: bool
    reportedAt: str | None


class Waiver(TypedDict):
    """Findings of a verifier that do not stand in the way of a model, for a while."""

    id: str
    artifact: dict[str, str]
    verifier: str
    rule: str | None
    file: str | None
    reason: str
    createdAt: str
    expiresAt: str
    revokedAt: str | None
    createdBy: dict[str, str]


class AuditEntry(TypedDict):
    """Something that was done."""

    id: str
    at: str
    action: str
    subject: str
    details: dict[str, Any] | None
    requestId: str | None
    actor: dict[str, str] | None


_PAGE = "pageInfo { hasNextPage endCursor }"
_PROJECT = "id name type createdAt"
_INVITATION = "id email permission state vfolderName createdAt answeredAt inviter { id email }"
_HOST_PERMISSION = "id host permissions user { id email } project { id name }"
_QUOTA = (
    "id host quotaScopeId storageName limitBytes usedBytes reservedBytes availableBytes enforced reportedAt "
    "user { id email } project { id name }"
)
_WAIVER = (
    "id artifact { id name } verifier rule file reason createdAt expiresAt revokedAt createdBy { id email }"
)
_PERSON = "id email role status createdAt permissions"

PROJECTS = f"""query Projects($search: String, $first: Int!, $after: String) {{
  projects(search: $search, first: $first, after: $after) {{ {_PAGE} edges {{ node {{ {_PROJECT} }} }} }} }}"""
MEMBERS = f"""query Members($id: ID!, $first: Int!, $after: String) {{
  projectMembers(projectId: $id, first: $first, after: $after) {{
    {_PAGE} edges {{ node {{ id email role status createdAt }} }} }} }}"""
CREATE_PROJECT = f"""mutation CreateProject($name: String!, $type: ProjectType!) {{
  createProject(input: {{name: $name, type: $type}}) {{ project {{ {_PROJECT} }} }} }}"""
DELETE_PROJECT = "mutation DeleteProject($id: ID!) { deleteProject(input: {projectId: $id}) { id } }"
ADD_MEMBER = """mutation AddMember($id: ID!, $user: ID!) {
  addProjectMember(input: {projectId: $id, userId: $user}) { project { id name } } }"""
REMOVE_MEMBER = """mutation RemoveMember($id: ID!, $user: ID!) {
  removeProjectMember(input: {projectId: $id, userId: $user}) { project { id name } } }"""

INVITATIONS = f"""query Invitations(
  $received: Boolean, $folder: ID, $state: [VFolderInvitationState!], $first: Int!, $after: String
) {{ vfolderInvitations(received: $received, vfolderId: $folder, state: $state, first: $first, after: $after) {{
  {_PAGE} edges {{ node {{ {_INVITATION} }} }} }} }}"""
SHARES = f"""query Shares($folder: ID!, $first: Int!, $after: String) {{
  vfolderShares(vfolderId: $folder, first: $first, after: $after) {{
    {_PAGE} edges {{ node {{ permission user {{ id email }} }} }} }} }}"""
INVITE = f"""mutation Invite($folder: ID!, $email: String!, $permission: VFolderPermission!) {{
  inviteToVfolder(input: {{vfolderId: $folder, email: $email, permission: $permission}}) {{
    invitation {{ {_INVITATION} }} }} }}"""
ACCEPT = f"""mutation Accept($id: ID!) {{
  acceptVfolderInvitation(input: {{id: $id}}) {{ invitation {{ {_INVITATION} }} }} }}"""
REJECT = f"""mutation Reject($id: ID!) {{
  rejectVfolderInvitation(input: {{id: $id}}) {{ invitation {{ {_INVITATION} }} }} }}"""
REVOKE_SHARE = """mutation RevokeShare($folder: ID!, $email: String!) {
  revokeVfolderShare(input: {vfolderId: $folder, email: $email}) { vfolder { id name } } }"""
LEAVE = "mutation Leave($folder: ID!) { leaveVfolder(input: {vfolderId: $folder}) { id } }"
SET_PERMISSION = """mutation SetPermission($folder: ID!, $user: ID!, $permission: VFolderPermission!) {
  setVfolderPermission(input: {vfolderId: $folder, userId: $user, permission: $permission}) {
    share { permission user { id email } } } }"""

HOST_PERMISSIONS = f"""query HostPermissions($host: String, $first: Int!, $after: String) {{
  hostPermissions(host: $host, first: $first, after: $after) {{
    {_PAGE} edges {{ node {{ {_HOST_PERMISSION} }} }} }} }}"""
GRANT_HOST = f"""mutation GrantHost(
  $host: String!, $permissions: [VFolderHostPermission!]!, $user: ID, $project: ID
) {{ grantHostPermissions(
  input: {{host: $host, permissions: $permissions, userId: $user, projectId: $project}}
) {{ hostPermission {{ {_HOST_PERMISSION} }} }} }}"""
REVOKE_HOST = f"""mutation RevokeHost(
  $host: String!, $permissions: [VFolderHostPermission!]!, $user: ID, $project: ID
) {{ revokeHostPermissions(
  input: {{host: $host, permissions: $permissions, userId: $user, projectId: $project}}
) {{ hostPermission {{ {_HOST_PERMISSION} }} }} }}"""

QUOTA = f"""query Quota($user: ID, $project: ID, $storage: String, $host: String) {{
  quota(userId: $user, projectId: $project, storageName: $storage, host: $host) {{ {_QUOTA} }} }}"""
QUOTAS = f"""query Quotas($first: Int!, $after: String) {{
  quotas(first: $first, after: $after) {{ {_PAGE} edges {{ node {{ {_QUOTA} }} }} }} }}"""
SET_QUOTA = f"""mutation SetQuota(
  $limit: ByteSize, $user: ID, $project: ID, $storage: String, $host: String
) {{ setQuota(
  input: {{limitBytes: $limit, userId: $user, projectId: $project, storageName: $storage, host: $host}}
) {{ quota {{ {_QUOTA} }} }} }}"""

SET_ROLE = f"""mutation SetRole($id: ID!, $role: UserRole!) {{
  setUserRole(input: {{userId: $id, role: $role}}) {{ user {{ {_PERSON} }} }} }}"""
GRANT_USER = f"""mutation GrantUser($id: ID!, $permission: UserPermission!) {{
  grantUserPermission(input: {{userId: $id, permission: $permission}}) {{ user {{ {_PERSON} }} }} }}"""
REVOKE_USER = f"""mutation RevokeUser($id: ID!, $permission: UserPermission!) {{
  revokeUserPermission(input: {{userId: $id, permission: $permission}}) {{ user {{ {_PERSON} }} }} }}"""
ROTATE_TOKEN = """mutation RotateToken($id: ID!, $expiresAt: DateTime, $keepUntil: DateTime) {
  rotateToken(input: {id: $id, expiresAt: $expiresAt, keepUntil: $keepUntil}) { id token } }"""  # noqa: S105 -- a document
EXPIRE_TOKEN = """mutation ExpireToken($id: ID!, $expiresAt: DateTime) {
  setTokenExpiry(input: {id: $id, expiresAt: $expiresAt}) { token {
    id name createdAt expiresAt revokedAt user { id email } } } }"""  # noqa: S105 -- as above

WAIVERS = f"""query Waivers($artifact: ID, $inForce: Boolean, $first: Int!, $after: String) {{
  verificationWaivers(artifactId: $artifact, inForce: $inForce, first: $first, after: $after) {{
    {_PAGE} edges {{ node {{ {_WAIVER} }} }} }} }}"""
CREATE_WAIVER = f"""mutation CreateWaiver(
  $artifact: ID!, $verifier: String!, $rule: String, $file: String, $reason: String!, $expiresAt: DateTime!
) {{ createVerificationWaiver(input: {{
  artifactId: $artifact, verifier: $verifier, rule: $rule, file: $file, reason: $reason, expiresAt: $expiresAt
}}) {{ waiver {{ {_WAIVER} }} }} }}"""
REVOKE_WAIVER = f"""mutation RevokeWaiver($id: ID!) {{
  revokeVerificationWaiver(input: {{id: $id}}) {{ waiver {{ {_WAIVER} }} }} }}"""
APPROVE = "mutation Approve($id: ID!) { approveImportTask(input: {taskId: $id}) { task { id status } } }"
REJECT_IMPORT = """mutation RejectImport($id: ID!, $reason: String) {
  rejectImportTask(input: {taskId: $id, reason: $reason}) { task { id status } } }"""

AUDIT = f"""query Audit(
  $actor: ID, $action: String, $subject: String, $since: DateTime, $first: Int!, $after: String
) {{ auditEntries(
  actorId: $actor, action: $action, subject: $subject, since: $since, first: $first, after: $after
) {{ {_PAGE} edges {{ node {{ id at action subject details requestId actor {{ id email }} }} }} }} }}"""


class Administration:
    """What a client may ask of a manager beyond models and folders; errors and values are `StowageClient`'s."""

    def __init__(self, client: StowageClient) -> None:
        self._client = client

    # Projects.

    def projects(self, search: str | None = None) -> Iterator[Project]:
        """Yield the projects that the caller may see, by name."""
        return cast("Iterator[Project]", self._client.pages(PROJECTS, "projects", search=search))

    def project(self, project: str) -> Project:
        """Return the project with this id or exact name. Raises `NotFound`."""
        for found in self.projects(None if is_uuid(project) else project):
            if project in {found["id"], found["name"]}:
                return found
        raise NotFound(f"there is no project {project}; `stowage project list` shows yours")

    def project_id(self, project: str | None) -> str | None:
        """Return the id of the project with this id or name, None for None."""
        return None if project is None else self.project(project)["id"]

    def create_project(self, name: str, kind: str) -> Project:
        """Make a project."""
        data = self._client.execute(CREATE_PROJECT, {"name": name, "type": kind})
        return cast("Project", data["createProject"]["project"])

    def delete_project(self, project_id: str) -> None:
        """End a project that owns no folders."""
        self._client.execute(DELETE_PROJECT, {"id": project_id})

    def members(self, project_id: str) -> Iterator[User]:
        """Yield the members of a project by address."""
        return cast("Iterator[User]", self._client.pages(MEMBERS, "projectMembers", id=project_id))

    def add_member(self, project_id: str, user_id: str) -> None:
        """Make a user a member; may be repeated."""
        self._client.execute(ADD_MEMBER, {"id": project_id, "user": user_id})

    def remove_member(self, project_id: str, user_id: str) -> None:
        """End a membership; may be repeated."""
        self._client.execute(REMOVE_MEMBER, {"id": project_id, "user": user_id})

    # Sharing.

    def invitations(
        self, *, received: bool, vfolder_id: str | None = None, state: list[str] | None = None
    ) -> Iterator[Invitation]:
        """Yield invitations, the newest first: those to the caller, or those to folders of the caller's."""
        found = self._client.pages(
            INVITATIONS, "vfolderInvitations", received=received, folder=vfolder_id, state=state
        )
        return cast("Iterator[Invitation]", found)

    def invitation(self, invitation: str) -> Invitation:
        """Return the invitation to the caller that waits and has this id, or is to the folder of this name.

        Raises `NotFound`, and `Conflict` if several folders of that name wait.
        """
        waiting = self.invitations(received=True, state=["PENDING"])
        named = [each for each in waiting if invitation in {each["id"], each["vfolderName"]}]
        if not named:
            raise NotFound(
                f"no invitation {invitation} waits for you; `stowage folder invitations` shows what does"
            )
        if len(named) > 1:
            ids = ", ".join(f"{each['id']} by {each['inviter']['email']}" for each in named)
            raise Conflict(f"several folders are called {invitation}; give the id of one of them: {ids}")
        return named[0]

    def shares(self, vfolder_id: str) -> Iterator[Share]:
        """Yield who uses a folder beside its owner and its project."""
        return cast("Iterator[Share]", self._client.pages(SHARES, "vfolderShares", folder=vfolder_id))

    def invite(self, vfolder_id: str, email: str, permission: str) -> Invitation:
        """Invite an address to a folder."""
        variables = {"folder": vfolder_id, "email": email, "permission": permission}
        return cast("Invitation", self._client.execute(INVITE, variables)["inviteToVfolder"]["invitation"])

    def accept(self, invitation_id: str) -> Invitation:
        """Accept an invitation."""
        data = self._client.execute(ACCEPT, {"id": invitation_id})
        return cast("Invitation", data["acceptVfolderInvitation"]["invitation"])

    def reject(self, invitation_id: str) -> Invitation:
        """Reject an invitation."""
        data = self._client.execute(REJECT, {"id": invitation_id})
        return cast("Invitation", data["rejectVfolderInvitation"]["invitation"])

    def revoke_share(self, vfolder_id: str, email: str) -> None:
        """Take a folder back from an address."""
        self._client.execute(REVOKE_SHARE, {"folder": vfolder_id, "email": email})

    def leave(self, vfolder_id: str) -> None:
        """Give up somebody else's folder."""
        self._client.execute(LEAVE, {"folder": vfolder_id})

    def set_permission(self, vfolder_id: str, user_id: str, permission: str) -> Share:
        """Change what somebody may do who has the folder."""
        variables = {"folder": vfolder_id, "user": user_id, "permission": permission}
        data = self._client.execute(SET_PERMISSION, variables)
        return cast("Share", data["setVfolderPermission"]["share"])

    # Hosts and quotas.

    def host_permissions(self, host: str | None) -> Iterator[HostPermission]:
        """Yield what is permitted on hosts."""
        found = self._client.pages(HOST_PERMISSIONS, "hostPermissions", host=host)
        return cast("Iterator[HostPermission]", found)

    def change_host(
        self,
        host: str,
        permissions: list[str],
        *,
        user_id: str | None,
        project_id: str | None,
        grant: bool,
    ) -> HostPermission:
        """Permit more (`grant`) or less on a host."""
        variables = {"host": host, "permissions": permissions, "user": user_id, "project": project_id}
        data = self._client.execute(GRANT_HOST if grant else REVOKE_HOST, variables)
        field = "grantHostPermissions" if grant else "revokeHostPermissions"
        return cast("HostPermission", data[field]["hostPermission"])

    def quota(
        self, *, user_id: str | None, project_id: str | None, storage: str | None, host: str | None
    ) -> Quota:
        """Return a quota as it is now; the caller's own where nothing is named."""
        variables = {"user": user_id, "project": project_id, "storage": storage, "host": host}
        return cast("Quota", self._client.execute(QUOTA, variables)["quota"])

    def quotas(self) -> Iterator[Quota]:
        """Yield the quotas that were set and the caller may see."""
        return cast("Iterator[Quota]", self._client.pages(QUOTAS, "quotas"))

    def set_quota(
        self,
        limit: int | None,
        *,
        user_id: str | None,
        project_id: str | None,
        storage: str | None,
        host: str | None,
    ) -> Quota:
        """Set a limit in bytes; None lifts it."""
        named = {"user": user_id, "project": project_id, "storage": storage, "host": host}
        variables = named | {"limit": None if limit is None else str(limit)}
        return cast("Quota", self._client.execute(SET_QUOTA, variables)["setQuota"]["quota"])

    # Users and tokens.

    def set_role(self, user_id: str, role: str) -> User:
        """Make a user an administrator, or an administrator a user."""
        data = self._client.execute(SET_ROLE, {"id": user_id, "role": role})
        return cast("User", data["setUserRole"]["user"])

    def change_user(self, user_id: str, permission: str, *, grant: bool) -> User:
        """Permit a user more (`grant`) or less beyond the role."""
        variables = {"id": user_id, "permission": permission}
        data = self._client.execute(GRANT_USER if grant else REVOKE_USER, variables)
        return cast("User", data["grantUserPermission" if grant else "revokeUserPermission"]["user"])

    def rotate_token(
        self, token_id: str, *, expires_at: str | None, keep_until: str | None
    ) -> tuple[str, str]:
        """Replace a token; returns the new one's id and the token, which can be read this once."""
        variables = {"id": token_id, "expiresAt": expires_at, "keepUntil": keep_until}
        made = self._client.execute(ROTATE_TOKEN, variables)["rotateToken"]
        return made["id"], made["token"]

    def expire_token(self, token_id: str, expires_at: str | None) -> Token:
        """Set when a token ends; None is never."""
        data = self._client.execute(EXPIRE_TOKEN, {"id": token_id, "expiresAt": expires_at})
        return cast("Token", data["setTokenExpiry"]["token"])

    # Verification.

    def waivers(self, artifact_id: str | None, *, in_force: bool | None) -> Iterator[Waiver]:
        """Yield waivers, the newest first."""
        found = self._client.pages(WAIVERS, "verificationWaivers", artifact=artifact_id, inForce=in_force)
        return cast("Iterator[Waiver]", found)

    def create_waiver(
        self,
        artifact_id: str,
        *,
        verifier: str,
        rule: str | None,
        file: str | None,
        reason: str,
        expires_at: str,
    ) -> Waiver:
        """Let findings of a verifier in an artifact's files pass."""
        variables = {
            "artifact": artifact_id,
            "verifier": verifier,
            "rule": rule,
            "file": file,
            "reason": reason,
            "expiresAt": expires_at,
        }
        data = self._client.execute(CREATE_WAIVER, variables)
        return cast("Waiver", data["createVerificationWaiver"]["waiver"])

    def revoke_waiver(self, waiver_id: str) -> Waiver:
        """End a waiver."""
        data = self._client.execute(REVOKE_WAIVER, {"id": waiver_id})
        return cast("Waiver", data["revokeVerificationWaiver"]["waiver"])

    def approve_import(self, task_id: str) -> None:
        """Let an import that waits for approval be published."""
        self._client.execute(APPROVE, {"id": task_id})

    def reject_import(self, task_id: str, reason: str | None) -> None:
        """End an import that waits for approval."""
        self._client.execute(REJECT_IMPORT, {"id": task_id, "reason": reason})

    # What was done.

    def audit(
        self, *, actor_id: str | None, action: str | None, subject: str | None, since: str | None
    ) -> Iterator[AuditEntry]:
        """Yield what was done, the newest first, page by page."""
        found = self._client.pages(
            AUDIT, "auditEntries", actor=actor_id, action=action, subject=subject, since=since
        )
        return cast("Iterator[AuditEntry]", found)
