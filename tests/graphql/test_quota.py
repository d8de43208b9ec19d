"""Quotas, as clients set and read them."""

import pytest

from manager.graphql.ids import global_id
from manager.models import ImportTask, Project, ProjectMember, Quota
from tests.graphql.served import Json, Manager, Person

pytestmark = pytest.mark.anyio

FIELDS = """id host quotaScopeId storageName limitBytes usedBytes reservedBytes availableBytes enforced reportedAt
  user { email } project { name }"""
SET = f"mutation($input: SetQuotaInput!) {{ setQuota(input: $input) {{ quota {{ {FIELDS} }} }} }}"
ONE = f"""query($user: ID, $project: ID, $storage: String, $host: String) {{
  quota(userId: $user, projectId: $project, storageName: $storage, host: $host) {{ {FIELDS} }} }}"""
ALL = f"""query($first: Int, $after: String) {{ quotas(first: $first, after: $after) {{
  count pageInfo {{ hasNextPage endCursor }} edges {{ node {{ {FIELDS} }} }} }} }}"""
IMPORT = """mutation($id: ID!, $folder: ID) {
  importArtifacts(input: {artifactRevisionIds: [$id], vfolderId: $folder}) { tasks { taskId } } }"""


async def test_a_limit_is_set_enforced_and_read_by_whom_it_is_of(manager: Manager) -> None:
    person = await manager.person()
    scope = f"user:{person.id}"
    manager.proxy.used[scope] = 300
    asked = {"userId": global_id("User", person.id), "limitBytes": "1000"}
    quota = (await manager.ask(SET, {"input": asked}))["setQuota"]["quota"]
    assert quota.pop("reportedAt")
    assert quota == {
        "id": quota["id"],
        "host": "local:volume1",
        "quotaScopeId": scope,
        "storageName": None,
        "limitBytes": "1000",
        "usedBytes": "300",
        "reservedBytes": "0",
        "availableBytes": "700",
        "enforced": True,
        "user": {"email": person.row.email},
        "project": None,
    }
    assert manager.proxy.limits == {scope: 1000}
    manager.proxy.used[scope] = 400
    own = (await manager.ask(ONE, by=person))["quota"]
    assert (own["id"], own["usedBytes"], own["availableBytes"]) == (quota["id"], "400", "600")
    listed = await manager.ask(ALL, by=person)
    assert [edge["node"]["id"] for edge in listed["quotas"]["edges"]] == [quota["id"]]


async def test_an_import_that_does_not_fit_is_refused_with_a_code_and_nothing_changes(
    manager: Manager,
) -> None:
    person = await manager.person()
    folder = await manager.folder(person)
    revision = await manager.revision(await manager.artifact(), size=600)
    other = await manager.revision(await manager.artifact("org/other"), size=401)
    await manager.ask(SET, {"input": {"userId": str(person.id), "limitBytes": "1000"}})
    into = {"folder": str(folder.id)}
    await manager.ask(IMPORT, into | {"id": str(revision.id)}, by=person)
    tasks = await manager.rows(ImportTask)
    error = await manager.refusal(IMPORT, into | {"id": str(other.id)}, by=person)
    assert error["extensions"] == {"code": "QUOTA_EXCEEDED", "field": "input.vfolderId"}
    assert "401 bytes" in error["message"]
    assert await manager.rows(ImportTask) == tasks
    quota = (await manager.ask(ONE, by=person))["quota"]
    assert (quota["reservedBytes"], quota["availableBytes"]) == ("600", "400")


async def test_the_artifact_storage_has_a_quota(manager: Manager) -> None:
    revision = await manager.revision(await manager.artifact(), size=600)
    quota = (await manager.ask(SET, {"input": {"storageName": "archive", "limitBytes": "599"}}))["setQuota"]
    assert quota["quota"] | {"id": "", "reportedAt": ""} == {
        "id": "",
        "host": None,
        "quotaScopeId": None,
        "storageName": "archive",
        "limitBytes": "599",
        "usedBytes": "0",
        "reservedBytes": "0",
        "availableBytes": "599",
        "enforced": True,
        "reportedAt": "",
        "user": None,
        "project": None,
    }
    error = await manager.refusal(IMPORT, {"id": str(revision.id)})
    assert error["extensions"] == {"code": "QUOTA_EXCEEDED", "field": "input.artifactRevisionIds"}
    await manager.ask(SET, {"input": {"storageName": "archive", "limitBytes": None}})
    await manager.ask(IMPORT, {"id": str(revision.id)})


async def test_a_proxy_that_is_away_leaves_the_last_report(manager: Manager) -> None:
    person = await manager.person()
    manager.proxy.used[f"user:{person.id}"] = 300
    await manager.ask(SET, {"input": {"userId": str(person.id), "limitBytes": "1000"}})
    manager.proxy.down = True
    assert (await manager.ask(ONE, by=person))["quota"]["usedBytes"] == "300"
    changed = await manager.ask(SET, {"input": {"userId": str(person.id), "limitBytes": "2000"}})
    quota = changed["setQuota"]["quota"]
    assert (quota["limitBytes"], quota["enforced"]) == ("2000", False)


async def test_quotas_are_seen_by_those_they_are_of_and_set_by_administrators(manager: Manager) -> None:
    person, stranger, project = await manager.person(), await manager.person(), Project(name="lab")
    await manager.add(project)
    await manager.add(ProjectMember(project_id=project.id, user_id=person.id))
    for owner in ({"userId": str(person.id)}, {"projectId": str(project.id)}, {"storageName": "archive"}):
        await manager.ask(SET, {"input": owner | {"limitBytes": "5"}})
        error = await manager.refusal(SET, {"input": owner | {"limitBytes": "9"}}, by=person)
        assert error["extensions"]["code"] == "FORBIDDEN"

    async def count(by: Person) -> int:
        return int((await manager.ask(ALL, by=by))["quotas"]["count"])

    assert [await count(who) for who in (manager.admin, person, stranger)] == [3, 2, 0]
    refused: list[tuple[Json, Json]] = [
        ({"user": str(person.id)}, {"code": "FORBIDDEN", "field": "userId"}),
        ({"project": str(project.id)}, {"code": "NOT_FOUND", "field": "projectId"}),
        ({"storage": "archive"}, {"code": "FORBIDDEN"}),
        ({"host": "nowhere:x"}, {"code": "BAD_REQUEST", "field": "host"}),
    ]
    for asked, extensions in refused:
        assert (await manager.refusal(ONE, asked, by=stranger))["extensions"] == extensions


async def test_a_list_of_quotas_costs_one_statement_more_for_each_kind_of_owner(manager: Manager) -> None:
    for _ in range(5):
        person = await manager.person()
        await manager.ask(SET, {"input": {"userId": str(person.id), "limitBytes": "5"}})
    costs = []
    for size in (1, 5):
        with manager.statements() as seen:
            await manager.ask(ALL, {"first": size})
        costs.append(len(seen))
    assert costs == [4, 4]  # the caller, the page, its count, the users


async def test_a_refused_limit_leaves_no_row(manager: Manager) -> None:
    refused: list[tuple[Json, str]] = [
        ({"limitBytes": "5"}, "input.userId"),
        ({"limitBytes": "9999999999999999999", "userId": str(manager.admin.id)}, "input.limitBytes"),
        ({"limitBytes": "-1", "userId": str(manager.admin.id)}, "input.limitBytes"),
        ({"limitBytes": "5", "userId": "x"}, "input.userId"),
    ]
    for asked, field in refused:
        error = await manager.refusal(SET, {"input": asked})
        assert error["extensions"] == {"code": "BAD_REQUEST", "field": field}, asked
    assert await manager.rows(Quota) == []
