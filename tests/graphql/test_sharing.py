"""Sharing, projects, hosts, roles and tokens, as clients ask for them."""

from uuid import uuid4

import pytest

from manager.graphql.ids import global_id
from manager.models import AuditEntry, Project, ProjectMember, VFolderGrant, VFolderPermission
from tests.graphql.served import Json, Manager

pytestmark = pytest.mark.anyio

INVITE = """mutation($input: InviteToVFolderInput!) { inviteToVfolder(input: $input) { invitation {
  id email permission state vfolderName answeredAt inviter { email } vfolder { name } } } }"""
ANSWER = """mutation($id: ID!) { %sVfolderInvitation(input: {id: $id}) { invitation {
  state vfolder { name permission } } } }"""
INVITATIONS = """query($received: Boolean, $folder: ID, $state: [VFolderInvitationState!], $first: Int) {
  vfolderInvitations(received: $received, vfolderId: $folder, state: $state, first: $first) {
    count edges { node { id email state vfolderName vfolder { name } inviter { email } } } } }"""
SHARES = """query($id: ID!) { vfolderShares(vfolderId: $id) {
  count edges { node { permission user { email permissions } } } } }"""


def nodes(connection: Json) -> list[Json]:
    return [edge["node"] for edge in connection["edges"]]


# Sharing.


async def test_a_folder_is_shared_from_the_invitation_to_the_end(manager: Manager) -> None:
    owner, guest = await manager.person("owner"), await manager.person("guest")
    folder = await manager.folder(owner, "models")
    asked = {
        "vfolderId": global_id("VFolder", folder.id),
        "email": guest.row.email,
        "permission": "READ_WRITE",
    }
    sent = (await manager.ask(INVITE, {"input": asked}, by=owner))["inviteToVfolder"]["invitation"]
    key = sent.pop("id")
    assert sent == {
        "email": guest.row.email,
        "permission": "READ_WRITE",
        "state": "PENDING",
        "vfolderName": "models",
        "answeredAt": None,
        "inviter": {"email": owner.row.email},
        "vfolder": {"name": "models"},
    }
    received = (await manager.ask(INVITATIONS, {"received": True}, by=guest))["vfolderInvitations"]
    (invitation,) = nodes(received)
    assert (invitation["id"], invitation["vfolderName"], invitation["vfolder"]) == (key, "models", None)
    data = await manager.ask(ANSWER % "accept", {"id": key}, by=guest)
    assert data["acceptVfolderInvitation"]["invitation"] == {
        "state": "ACCEPTED",
        "vfolder": {"name": "models", "permission": "READ_WRITE"},
    }
    shares = (await manager.ask(SHARES, {"id": str(folder.id)}, by=owner))["vfolderShares"]
    assert nodes(shares) == [
        {"permission": "READ_WRITE", "user": {"email": guest.row.email, "permissions": None}}
    ]
    changed = await manager.ask(
        """mutation($input: SetVFolderPermissionInput!) { setVfolderPermission(input: $input) {
          share { permission user { email } } } }""",
        {"input": {"vfolderId": str(folder.id), "userId": str(guest.id), "permission": "RW_DELETE"}},
        by=owner,
    )
    assert changed["setVfolderPermission"]["share"]["permission"] == "RW_DELETE"
    await manager.ask(
        """mutation($input: RevokeVFolderShareInput!) { revokeVfolderShare(input: $input) { vfolder { name } } }""",
        {"input": {"vfolderId": str(folder.id), "email": guest.row.email}},
        by=owner,
    )
    query = "query($id: ID!) { vfolder(id: $id) { name } }"
    assert await manager.ask(query, {"id": str(folder.id)}, by=guest) == {"vfolder": None}


async def test_an_invitation_is_rejected_and_a_folder_is_left(manager: Manager) -> None:
    owner, guest = await manager.person("owner"), await manager.person("guest")
    folder = await manager.folder(owner)
    asked = {"vfolderId": str(folder.id), "email": guest.row.email}
    sent = (await manager.ask(INVITE, {"input": asked}, by=owner))["inviteToVfolder"]["invitation"]
    data = await manager.ask(ANSWER % "reject", {"id": sent["id"]}, by=guest)
    assert data["rejectVfolderInvitation"]["invitation"] == {"state": "REJECTED", "vfolder": None}
    await manager.add(
        VFolderGrant(vfolder_id=folder.id, user_id=guest.id, permission=VFolderPermission.READ_ONLY)
    )
    leave = "mutation($id: ID!) { leaveVfolder(input: {vfolderId: $id}) { id } }"
    assert await manager.ask(leave, {"id": str(folder.id)}, by=guest) == {
        "leaveVfolder": {"id": str(folder.id)}
    }
    error = await manager.refusal(leave, {"id": str(folder.id)}, by=guest)
    assert error["extensions"] == {"code": "NOT_FOUND", "field": "input.vfolderId"}


async def test_invitations_can_be_narrowed_and_cost_the_same_for_many(manager: Manager) -> None:
    owner = await manager.person("owner")
    folder, other = await manager.folder(owner, "one"), await manager.folder(owner, "two")
    for number in range(6):
        asked = {"vfolderId": str((folder, other)[number % 2].id), "email": f"x{number}@example.org"}
        await manager.ask(INVITE, {"input": asked}, by=owner)

    async def count(**asked: object) -> int:
        found = (await manager.ask(INVITATIONS, asked, by=owner))["vfolderInvitations"]
        return int(found["count"])

    assert await count() == 6
    assert await count(received=True) == 0
    assert await count(received=False, folder=str(folder.id), state=["PENDING"]) == 3
    assert await count(state=["ACCEPTED"]) == 0
    costs = []
    for size in (1, 6):
        with manager.statements() as seen:
            await manager.ask(INVITATIONS, {"first": size}, by=owner)
        costs.append(len(seen))
    assert costs[0] == costs[1] <= 6


# Projects.

PROJECTS = """query($search: String) { projects(search: $search) { count edges { node {
  id name type createdAt } } } }"""
MEMBERS = "query($id: ID!) { projectMembers(projectId: $id) { count edges { node { email } } } }"


async def test_a_project_from_its_beginning_to_its_end(manager: Manager) -> None:
    person, stranger = await manager.person("a"), await manager.person("b")
    created = await manager.ask(
        """mutation { createProject(input: {name: "lab", type: MODEL_STORE}) { project { id name type } } }"""
    )
    project = created["createProject"]["project"]
    assert (project["name"], project["type"]) == ("lab", "MODEL_STORE")
    change = """mutation($project: ID!, $user: ID!) {
      %sProjectMember(input: {projectId: $project, userId: $user}) { project { name } } }"""
    both = {"project": project["id"], "user": global_id("User", person.id)}
    await manager.ask(change % "add", both)
    assert nodes((await manager.ask(MEMBERS, {"id": project["id"]}, by=person))["projectMembers"]) == [
        {"email": person.row.email}
    ]
    assert (await manager.ask(MEMBERS, {"id": project["id"]}, by=stranger))["projectMembers"]["count"] == 0
    (found,) = nodes((await manager.ask(PROJECTS, {"search": "LA"}, by=person))["projects"])
    assert found["id"] == project["id"]
    assert (await manager.ask(PROJECTS, by=stranger))["projects"]["count"] == 0
    await manager.ask(change % "remove", both)
    assert (await manager.ask(PROJECTS, by=person))["projects"]["count"] == 0
    delete = "mutation($id: ID!) { deleteProject(input: {projectId: $id}) { id } }"
    error = await manager.refusal(delete, {"id": project["id"]}, by=person)
    assert error["extensions"]["code"] == "FORBIDDEN"
    assert await manager.ask(delete, {"id": project["id"]}) == {"deleteProject": {"id": project["id"]}}
    assert (await manager.ask(PROJECTS))["projects"]["count"] == 0


# Hosts.

GRANT = """mutation($input: GrantHostPermissionsInput!) { grantHostPermissions(input: $input) {
  hostPermission { host permissions user { email } project { name } } } }"""
HOSTS = """query($host: String) { hostPermissions(host: $host) { count edges { node {
  host permissions user { email } project { name } } } } }"""


async def test_permissions_on_hosts_are_given_listed_and_taken(manager: Manager) -> None:
    person, project = await manager.person(), Project(name="lab")
    await manager.add(project)
    asked: Json = {"host": "local:volume2", "permissions": ["UPLOAD_FILE", "CREATE_VFOLDER"]}
    whose: list[tuple[Json, Json | None, Json | None]] = [
        ({}, None, None),
        ({"userId": global_id("User", person.id)}, {"email": person.row.email}, None),
        ({"projectId": str(project.id)}, None, {"name": "lab"}),
    ]
    for who, user, named in whose:
        granted = await manager.ask(GRANT, {"input": asked | who})
        assert granted["grantHostPermissions"]["hostPermission"] == {
            "host": "local:volume2",
            "permissions": ["CREATE_VFOLDER", "UPLOAD_FILE"],
            "user": user,
            "project": named,
        }
    assert (await manager.ask(HOSTS, {"host": "local:volume2"}))["hostPermissions"]["count"] == 3
    assert (await manager.ask(HOSTS))["hostPermissions"]["count"] == 4  # and the first start's
    revoke = """mutation($input: RevokeHostPermissionsInput!) { revokeHostPermissions(input: $input) {
      hostPermission { permissions } } }"""
    left = await manager.ask(revoke, {"input": asked | {"permissions": ["UPLOAD_FILE"]}})
    assert left["revokeHostPermissions"]["hostPermission"] == {"permissions": ["CREATE_VFOLDER"]}
    for query, variables in ((HOSTS, {}), (GRANT, {"input": asked}), (revoke, {"input": asked})):
        assert (await manager.refusal(query, variables, by=person))["extensions"]["code"] == "FORBIDDEN"


# Users and tokens.


async def test_roles_and_permissions_of_users(manager: Manager) -> None:
    person, stranger = await manager.person(), await manager.person()
    change = """mutation($id: ID!) { %sUserPermission(input: {userId: $id, permission: ARTIFACT_IMPORT}) {
      user { permissions } } }"""
    key = {"id": str(person.id)}
    me = "{ me { role permissions } }"
    assert (await manager.ask(change % "grant", key))["grantUserPermission"]["user"] == {
        "permissions": ["ARTIFACT_IMPORT"]
    }
    assert await manager.ask(me, by=person) == {"me": {"role": "USER", "permissions": ["ARTIFACT_IMPORT"]}}
    assert (await manager.ask(change % "revoke", key))["revokeUserPermission"]["user"] == {"permissions": []}
    role = """mutation($id: ID!) { setUserRole(input: {userId: $id, role: ADMIN}) { user { role } } }"""
    for query in (change % "grant", change % "revoke", role):
        assert (await manager.refusal(query, key, by=stranger))["extensions"]["code"] == "FORBIDDEN"
    await manager.ask(role, key)
    assert (await manager.ask(me, by=person))["me"]["role"] == "ADMIN"


async def test_a_token_is_rotated_and_given_an_end(manager: Manager) -> None:
    person = await manager.person()
    listed = await manager.ask("{ tokens { edges { node { id name } } } }", by=person)
    (old,) = nodes(listed["tokens"])
    end = "2999-01-01T00:00:00+00:00"
    expiry = """mutation($id: ID!, $at: DateTime) { setTokenExpiry(input: {id: $id, expiresAt: $at}) {
      token { expiresAt } } }"""
    ends = await manager.ask(expiry, {"id": old["id"], "at": end}, by=person)
    assert ends["setTokenExpiry"]["token"] == {"expiresAt": end}
    rotate = "mutation($input: RotateTokenInput!) { rotateToken(input: $input) { id token } }"
    stranger = await manager.person()
    error = await manager.refusal(rotate, {"input": {"id": old["id"]}}, by=stranger)
    assert error["extensions"] == {"code": "NOT_FOUND", "field": "input.id"}
    made = (await manager.ask(rotate, {"input": {"id": old["id"]}}, by=person))["rotateToken"]
    me = {"query": "{ me { email } }"}
    for token, status in ((person.token, 401), (made["token"], 200)):
        headers = {"Authorization": f"Bearer {token}"}
        assert (await manager.http.post("/graphql", json=me, headers=headers)).status_code == status


# What was done.

AUDIT = """query($actor: ID, $action: String, $subject: String, $since: DateTime, $until: DateTime) {
  auditEntries(actorId: $actor, action: $action, subject: $subject, since: $since, until: $until) {
    count edges { node { action subject details requestId actor { email } } } } }"""


async def test_what_was_done_is_read_by_administrators(manager: Manager) -> None:
    person = await manager.person()
    folder = await manager.folder(person, "models")
    asked = {"vfolderId": str(folder.id), "email": "x@example.org"}
    await manager.ask(INVITE, {"input": asked}, by=person)
    await manager.ask('mutation { createProject(input: {name: "lab"}) { project { id } } }')
    newest, first = nodes((await manager.ask(AUDIT))["auditEntries"])
    assert (newest["action"], newest["details"]["name"]) == ("project.create", "lab")
    assert first["actor"] == {"email": person.row.email}
    assert (first["action"], first["subject"]) == ("vfolder.invite", str(folder.id))
    assert first["requestId"]
    for narrowed, count in (
        ({"actor": global_id("User", person.id)}, 1),
        ({"action": "project."}, 1),
        ({"action": "project"}, 0),
        ({"action": "project.create"}, 1),
        ({"subject": str(folder.id)}, 1),
        ({"since": "2999-01-01T00:00:00Z"}, 0),
        ({"until": "2999-01-01T00:00:00Z"}, 2),
    ):
        assert (await manager.ask(AUDIT, narrowed))["auditEntries"]["count"] == count, narrowed
    assert (await manager.refusal(AUDIT, by=person))["extensions"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("projects", 5),
        ("hostPermissions", 6),
        ("auditEntries", 5),
        ("vfolderInvitations", 5),
    ],
)
async def test_lists_have_both_ways_of_paging(manager: Manager, query: str, wanted: int) -> None:
    folder = await manager.folder(manager.admin)
    for number in range(5):
        project = Project(name=f"p{number}")
        await manager.add(project, AuditEntry(action="x.y", subject=str(number)))
        grant = {"host": "local:volume2", "permissions": ["UPLOAD_FILE"], "projectId": str(project.id)}
        if query == "hostPermissions":
            await manager.ask(GRANT, {"input": grant})
        if query == "vfolderInvitations":
            asked = {"vfolderId": str(folder.id), "email": f"x{number}@example.org"}
            await manager.ask(INVITE, {"input": asked})
    document = f"""query($first: Int, $after: String, $limit: Int, $offset: Int) {{
      {query}(first: $first, after: $after, limit: $limit, offset: $offset) {{
        count pageInfo {{ hasNextPage endCursor }} edges {{ node {{ id }} }} }} }}"""
    by_cursor: list[str] = []
    page: Json = {"hasNextPage": True, "endCursor": None}
    while page["hasNextPage"]:
        found = (await manager.ask(document, {"first": 2, "after": page["endCursor"]}))[query]
        page = found["pageInfo"]
        by_cursor += [node["id"] for node in nodes(found)]
    by_offset = [
        node["id"]
        for offset in range(0, 20, 2)
        for node in nodes((await manager.ask(document, {"limit": 2, "offset": offset}))[query])
    ]
    assert by_cursor == by_offset
    assert len(set(by_cursor)) == len(by_cursor) == found["count"] >= wanted


async def test_members_and_shares_are_paged(manager: Manager) -> None:
    folder, project = await manager.folder(manager.admin), Project(name="lab")
    await manager.add(project)
    for _ in range(3):
        person = await manager.person()
        permission = VFolderPermission.READ_ONLY
        await manager.add(
            ProjectMember(project_id=project.id, user_id=person.id),
            VFolderGrant(vfolder_id=folder.id, user_id=person.id, permission=permission),
        )
    for query, key, inner in (
        ("projectMembers(projectId: $id", project.id, "email"),
        ("vfolderShares(vfolderId: $id", folder.id, "user { email }"),
    ):
        document = f"""query($id: ID!, $after: String) {{ found: {query}, first: 2, after: $after) {{
          count pageInfo {{ hasNextPage endCursor }} edges {{ node {{ {inner} }} }} }} }}"""
        first = (await manager.ask(document, {"id": str(key)}))["found"]
        after = first["pageInfo"]["endCursor"]
        second = (await manager.ask(document, {"id": str(key), "after": after}))["found"]
        assert (len(first["edges"]), len(second["edges"]), first["count"]) == (2, 1, 3)


async def test_a_thing_that_is_not_there_is_named(manager: Manager) -> None:
    person = await manager.person()
    error = await manager.refusal(ANSWER % "accept", {"id": str(uuid4())}, by=person)
    assert error["extensions"] == {"code": "NOT_FOUND", "field": "input.id"}
    error = await manager.refusal(INVITE, {"input": {"vfolderId": "x", "email": "x@y"}}, by=person)
    assert error["extensions"] == {"code": "BAD_REQUEST", "field": "input.vfolderId"}
