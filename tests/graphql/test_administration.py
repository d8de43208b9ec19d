"""Users, tokens, deletions and retries, as clients ask for them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from manager.graphql.ids import global_id
from manager.models import ApiToken, ImportTask, ImportTaskStatus, User, UserRole, VFolder
from tests.graphql.served import Json, Manager
from tests.graphql.test_tasks import a_task

pytestmark = pytest.mark.anyio

USERS = """query($search: String, $first: Int, $after: String) {
  users(search: $search, first: $first, after: $after) {
    count pageInfo { hasNextPage endCursor } edges { node { id email role status createdAt } } } }"""
TOKENS = """query($userId: ID, $activeOnly: Boolean) { tokens(userId: $userId, activeOnly: $activeOnly) {
  count edges { node { id name createdAt expiresAt revokedAt user { email } } } } }"""
SET_STATUS = """mutation($input: SetUserStatusInput!) {
  setUserStatus(input: $input) { user { id status } } }"""
DELETE = """mutation($id: ID!) { deleteVfolder(input: {vfolderId: $id}) {
  vfolder { id name status permission project { name } usage { usedBytes } } } }"""
RETRY = """mutation($id: ID!) { retryImportTask(input: {taskId: $id}) { task {
  id status path destination { ... on VFolderDestination { vfolder { name } } } } } }"""


def nodes(connection: Json) -> list[Json]:
    return [edge["node"] for edge in connection["edges"]]


# Users.


async def test_users_are_listed_by_address_and_found_by_a_part_of_it(manager: Manager) -> None:
    people = [await manager.person(name) for name in ("carol_", "alice", "bob")]
    found = nodes((await manager.ask(USERS))["users"])
    assert [user["email"] for user in found] == sorted(
        ["admin@localhost", *(person.row.email for person in people)]
    )
    (carol,) = nodes((await manager.ask(USERS, {"search": "ROL_"}))["users"])
    assert carol.pop("createdAt").endswith("+00:00")
    assert carol == {
        "id": global_id("User", people[0].id),
        "email": people[0].row.email,
        "role": "USER",
        "status": "ACTIVE",
    }


async def test_users_come_in_pages(manager: Manager) -> None:
    for _ in range(4):
        await manager.person()
    seen, after = [], None
    while True:
        page = (await manager.ask(USERS, {"first": 2, "after": after}))["users"]
        assert page["count"] == 5
        seen += [user["email"] for user in nodes(page)]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    assert len(seen) == len(set(seen)) == 5


async def test_users_are_for_administrators(manager: Manager) -> None:
    error = await manager.refusal(USERS, by=await manager.person())
    assert error["extensions"]["code"] == "FORBIDDEN"


async def test_a_user_is_put_out_and_let_in(manager: Manager) -> None:
    person = await manager.person()
    key = global_id("User", person.id)

    async def entered() -> int:
        response = await manager.http.post(
            "/graphql", json={"query": "{ me { id } }"}, headers={"Authorization": f"Bearer {person.token}"}
        )
        return response.status_code

    for status, answer in (("INACTIVE", 401), ("ACTIVE", 200)):
        data = await manager.ask(SET_STATUS, {"input": {"userId": key, "status": status}})
        assert data["setUserStatus"]["user"] == {"id": key, "status": status}
        assert await entered() == answer


async def test_a_refused_status_changes_nothing(manager: Manager) -> None:
    person = await manager.person()
    await manager.person(role=UserRole.USER)
    users = await manager.rows(User)
    own = {"userId": str(manager.admin.id), "status": "INACTIVE"}
    refused = [
        (manager.admin, own, "CONFLICT", "input.userId"),
        (manager.admin, own | {"userId": str(uuid4())}, "NOT_FOUND", "input.userId"),
        (manager.admin, own | {"userId": "x"}, "BAD_REQUEST", "input.userId"),
        (manager.admin, own | {"status": "GONE"}, "BAD_REQUEST", "input.status"),
        (person, own, "FORBIDDEN", None),
        (person, own | {"userId": str(person.id)}, "FORBIDDEN", None),
    ]
    for by, asked, code, field in refused:
        error = await manager.refusal(SET_STATUS, {"input": asked}, by=by)
        assert error["extensions"] == {"code": code} | ({"field": field} if field else {}), asked
    assert await manager.rows(User) == users


# Tokens.


async def test_ones_own_tokens_are_listed_without_their_values(manager: Manager) -> None:
    person = await manager.person()
    expires = datetime.now(UTC) + timedelta(days=1)
    token = ApiToken(user_id=person.id, name="ci", token_hash="f" * 64, expires_at=expires)
    await manager.add(token)
    tokens = (await manager.ask(TOKENS, by=person))["tokens"]
    assert tokens["count"] == 2
    newest, _first = nodes(tokens)
    assert newest.pop("createdAt").endswith("+00:00")
    assert newest == {
        "id": global_id("Token", token.id),
        "name": "ci",
        "expiresAt": expires.isoformat(),
        "revokedAt": None,
        "user": {"email": person.row.email},
    }
    assert token.token_hash not in str(tokens)


async def test_only_tokens_that_still_open_the_door(manager: Manager) -> None:
    person, past = await manager.person(), datetime.now(UTC) - timedelta(days=1)
    for number, values in enumerate(({"expires_at": past}, {"revoked_at": past})):
        await manager.add(ApiToken(user_id=person.id, name="x", token_hash=str(number), **values))
    for asked, names in ((True, {"test"}), (False, {"test", "x"}), (None, {"test", "x"})):
        found = nodes((await manager.ask(TOKENS, {"activeOnly": asked}, by=person))["tokens"])
        assert {token["name"] for token in found} == names


async def test_an_administrator_sees_the_tokens_of_anybody_and_nobody_else_does(manager: Manager) -> None:
    person, other = await manager.person(), await manager.person()
    for key in (str(person.id), global_id("User", person.id)):
        (token,) = nodes((await manager.ask(TOKENS, {"userId": key}))["tokens"])
        assert token["user"]["email"] == person.row.email
    assert len(nodes((await manager.ask(TOKENS, {"userId": str(person.id)}, by=person))["tokens"])) == 1
    for foreign in (person.id, uuid4()):
        error = await manager.refusal(TOKENS, {"userId": str(foreign)}, by=other)
        assert error["extensions"] == {"code": "FORBIDDEN", "field": "userId"}


async def test_a_token_is_revoked_by_the_id_of_the_list(manager: Manager) -> None:
    person = await manager.person()
    (token,) = nodes((await manager.ask(TOKENS, by=person))["tokens"])
    revoke = "mutation($id: ID!) { revokeToken(input: {id: $id}) { id } }"
    await manager.ask(revoke, {"id": token["id"]}, by=person)
    (revoked,) = nodes((await manager.ask(TOKENS, {"userId": str(person.id)}))["tokens"])
    assert revoked == token | {"revokedAt": revoked["revokedAt"]}
    assert revoked["revokedAt"] is not None


async def test_the_users_of_tokens_cost_one_statement(manager: Manager) -> None:
    person = await manager.person()
    for number in range(10):
        await manager.add(ApiToken(user_id=person.id, name="x", token_hash=str(number)))
    with manager.statements() as seen:
        await manager.ask(TOKENS, by=person)
    assert len(seen) == 4  # the caller, the page, its count, the user


# Deletions.


async def test_a_deleted_folder_is_answered_as_it_stands(manager: Manager) -> None:
    person = await manager.person()
    folder = await manager.folder(person)
    key = global_id("VFolder", folder.id)
    answered = (await manager.ask(DELETE, {"id": key}, by=person))["deleteVfolder"]["vfolder"]
    assert answered == {
        "id": key,
        "name": folder.name,
        "status": "DELETE_COMPLETE",
        "permission": "RW_DELETE",
        "project": None,
        "usage": None,
    }
    assert manager.proxy.deleted == [f"volume1/user:{person.id}/{folder.id.hex}"]
    query = "query($id: ID!) { vfolder(id: $id) { name } }"
    assert await manager.ask(query, {"id": str(folder.id)}, by=person) == {"vfolder": None}


async def test_a_proxy_that_is_down_leaves_the_folder_pending(manager: Manager) -> None:
    folder = await manager.folder(manager.admin)
    manager.proxy.down = True
    data = await manager.ask(DELETE, {"id": str(folder.id)})
    assert data["deleteVfolder"]["vfolder"]["status"] == "DELETE_PENDING"


async def test_a_refused_deletion_changes_nothing(manager: Manager) -> None:
    person, owner = await manager.person(), await manager.person()
    foreign, own = await manager.folder(owner), await manager.folder(person)
    await a_task(manager, person, await manager.revision(await manager.artifact()), own)
    folders = await manager.rows(VFolder)
    for by, key, code in (
        (person, foreign.id, "NOT_FOUND"),
        (person, uuid4(), "NOT_FOUND"),
        (person, "x", "BAD_REQUEST"),
        (manager.admin, foreign.id, "FORBIDDEN"),
        (person, own.id, "CONFLICT"),
    ):
        error = await manager.refusal(DELETE, {"id": str(key)}, by=by)
        assert error["extensions"] == {"code": code, "field": "input.vfolderId"}, code
    assert (await manager.rows(VFolder), manager.proxy.deleted) == (folders, [])


async def test_a_task_names_its_folder_after_the_folder_is_gone(manager: Manager) -> None:
    folder = await manager.folder(manager.admin)
    now = datetime.now(UTC)
    revision = await manager.revision(await manager.artifact())
    task = await a_task(
        manager, manager.admin, revision, folder, status=ImportTaskStatus.FAILED, finished_at=now
    )
    await manager.ask(DELETE, {"id": str(folder.id)})
    data = await manager.ask(
        """query($id: ID!) { importTask(id: $id) { destination {
          ... on VFolderDestination { vfolder { name status usage { usedBytes } } } } } }""",
        {"id": str(task.id)},
    )
    assert data["importTask"]["destination"]["vfolder"] == {
        "name": folder.name,
        "status": "DELETE_COMPLETE",
        "usage": None,
    }


# Retries.


async def test_a_retry_answers_the_new_task(manager: Manager) -> None:
    person = await manager.person()
    folder = await manager.folder(person)
    revision = await manager.revision(await manager.artifact())
    task = await a_task(
        manager, person, revision, folder, status=ImportTaskStatus.FAILED, finished_at=datetime.now(UTC)
    )
    data = await manager.ask(RETRY, {"id": global_id("ImportTask", task.id)}, by=person)
    again = data["retryImportTask"]["task"]
    assert (again["status"], again["path"]) == ("PENDING", "org/model/main")
    assert again["destination"] == {"vfolder": {"name": folder.name}}
    (ordered,) = manager.proxy.orders
    assert again["id"] == global_id("ImportTask", UUID(str(ordered)))
    assert ordered != task.id


async def test_a_refused_retry_changes_nothing(manager: Manager) -> None:
    person, stranger = await manager.person(), await manager.person()
    folder = await manager.folder(person)
    revision = await manager.revision(await manager.artifact())
    opened = await a_task(manager, person, revision, folder)
    done = await a_task(
        manager, person, revision, folder, status=ImportTaskStatus.SUCCEEDED, finished_at=datetime.now(UTC)
    )
    tasks = await manager.rows(ImportTask)
    for by, key, code in (
        (person, opened.id, "CONFLICT"),
        (person, done.id, "CONFLICT"),
        (stranger, done.id, "NOT_FOUND"),
        (person, uuid4(), "NOT_FOUND"),
        (person, "x", "BAD_REQUEST"),
    ):
        error = await manager.refusal(RETRY, {"id": str(key)}, by=by)
        assert error["extensions"] == {"code": code, "field": "input.taskId"}, code
    assert (await manager.rows(ImportTask), manager.proxy.orders) == (tasks, {})
