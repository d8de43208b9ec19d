from uuid import uuid4

import pytest

from manager.graphql.ids import global_id
from manager.models import (
    Project,
    ProjectMember,
    VFolder,
    VFolderGrant,
    VFolderOwnershipType,
    VFolderPermission,
    VFolderStatus,
    VFolderUsageMode,
)
from tests.graphql.served import Json, Manager

pytestmark = pytest.mark.anyio

CREATE = """mutation($input: CreateVFolderInput!) { createVfolder(input: $input) { vfolder {
  id name host usageMode ownershipType permission status quotaScopeId project { name type } createdAt } } }"""
LIST = """query($writableOnly: Boolean, $usageMode: VFolderUsageMode, $search: String) {
  vfolders(writableOnly: $writableOnly, usageMode: $usageMode, search: $search) {
    count edges { node { name permission } } } }"""
FILES = """query($id: ID!, $path: String) {
  vfolderFiles(vfolderId: $id, path: $path) { path size isDirectory modifiedAt } }"""


def names(data: Json) -> list[str]:
    return [edge["node"]["name"] for edge in data["vfolders"]["edges"]]


async def test_a_folder_is_created_on_the_default_volume(manager: Manager) -> None:
    person = await manager.person()
    data = await manager.ask(CREATE, {"input": {"name": "models", "usageMode": "MODEL"}}, by=person)
    folder = data["createVfolder"]["vfolder"]
    assert folder.pop("createdAt").endswith("+00:00")
    ((folder_id, *_),) = await manager.rows(VFolder)
    assert folder == {
        "id": global_id("VFolder", folder_id),
        "name": "models",
        "host": "local:volume1",
        "usageMode": "MODEL",
        "ownershipType": "USER",
        "permission": "RW_DELETE",
        "status": "READY",
        "quotaScopeId": f"user:{person.id}",
        "project": None,
    }
    assert manager.proxy.folders == [str(folder_id)]


async def test_a_folder_of_a_project_is_its_members(manager: Manager) -> None:
    person = await manager.person()
    project = Project(name="lab")
    await manager.add(project)
    await manager.add(ProjectMember(project_id=project.id, user_id=person.id))
    asked = {"name": "shared", "projectId": global_id("Project", project.id)}
    folder = (await manager.ask(CREATE, {"input": asked}, by=person))["createVfolder"]["vfolder"]
    assert folder["ownershipType"] == "GROUP"
    assert folder["permission"] == "READ_WRITE"
    assert folder["quotaScopeId"] == f"project:{project.id}"
    assert folder["project"] == {"name": "lab", "type": "GENERAL"}


async def test_a_refused_folder_names_the_field_and_leaves_nothing(manager: Manager) -> None:
    person = await manager.person()
    await manager.folder(person, "taken")
    refused: list[tuple[Json, str, str]] = [
        ({"name": "../out"}, "BAD_REQUEST", "input.name"),
        ({"name": ""}, "BAD_REQUEST", "input.name"),
        ({"name": "a/b"}, "BAD_REQUEST", "input.name"),
        ({"name": "a\0b"}, "BAD_REQUEST", "input.name"),
        ({"name": "taken"}, "CONFLICT", "input.name"),
        ({"name": "x", "host": "nowhere:volume1"}, "BAD_REQUEST", "input.host"),
        ({"name": "x", "host": "local:other"}, "FORBIDDEN", "input.host"),
        ({"name": "x", "projectId": "nonsense"}, "BAD_REQUEST", "input.projectId"),
        ({"name": "x", "projectId": str(uuid4())}, "NOT_FOUND", "input.projectId"),
    ]
    for asked, code, field in refused:
        error = await manager.refusal(CREATE, {"input": asked}, by=person)
        assert error["extensions"] == {"code": code, "field": field}, asked
        assert len(error["message"]) > 20
    assert len(await manager.rows(VFolder)) == 1
    assert manager.proxy.folders == []


async def test_a_list_holds_what_the_caller_may_see_with_the_permission(manager: Manager) -> None:
    person, stranger = await manager.person(), await manager.person()
    await manager.folder(person, "mine")
    shared = await manager.folder(stranger, "shared")
    await manager.folder(stranger, "secret")
    await manager.add(
        VFolderGrant(vfolder_id=shared.id, user_id=person.id, permission=VFolderPermission.READ_ONLY)
    )
    data = await manager.ask(LIST, by=person)
    assert [tuple(edge["node"].values()) for edge in data["vfolders"]["edges"]] == [
        ("mine", "RW_DELETE"),
        ("shared", "READ_ONLY"),
    ]
    assert data["vfolders"]["count"] == 2


async def test_a_folder_of_somebody_else_is_as_if_it_did_not_exist(manager: Manager) -> None:
    person, stranger = await manager.person(), await manager.person()
    folder = await manager.folder(stranger)
    query = "query($id: ID!) { vfolder(id: $id) { name } }"
    for key in (str(folder.id), str(uuid4())):
        assert await manager.ask(query, {"id": key}, by=person) == {"vfolder": None}
    errors = [await manager.refusal(FILES, {"id": str(key)}, by=person) for key in (folder.id, uuid4())]
    assert errors[0] == errors[1]
    assert errors[0]["extensions"] == {"code": "NOT_FOUND", "field": "vfolderId"}


async def test_a_list_can_be_narrowed(manager: Manager) -> None:
    person, stranger = await manager.person(), await manager.person()
    await manager.folder(person, "general_1")
    await manager.folder(person, "model", usage_mode=VFolderUsageMode.MODEL)
    await manager.folder(person, "trashed", status=VFolderStatus.DELETE_ERROR)
    await manager.folder(person, "outside", unmanaged_path="/data")
    await manager.folder(person, "elsewhere", host="local:other")
    read_only = await manager.folder(stranger, "read-only")
    await manager.add(
        VFolderGrant(vfolder_id=read_only.id, user_id=person.id, permission=VFolderPermission.READ_ONLY)
    )
    assert names(await manager.ask(LIST, {"writableOnly": True}, by=person)) == ["general_1", "model"]
    assert names(await manager.ask(LIST, {"usageMode": "MODEL"}, by=person)) == ["model"]
    assert names(await manager.ask(LIST, {"search": "MOD"}, by=person)) == ["model"]
    assert names(await manager.ask(LIST, {"search": "_"}, by=person)) == ["general_1"]
    everything = {"writableOnly": None, "usageMode": None, "search": None}
    assert len(names(await manager.ask(LIST, everything, by=person))) == 6


async def test_usage_is_asked_of_the_proxy_and_null_without_an_answer(manager: Manager) -> None:
    folder = await manager.folder(manager.admin)
    query = "query($id: ID!) { vfolder(id: $id) { name usage { usedBytes fileCount limitBytes } } }"
    data = await manager.ask(query, {"id": str(folder.id)})
    assert data["vfolder"]["usage"] == {"usedBytes": "5000000000", "fileCount": 7, "limitBytes": None}
    manager.proxy.down = True
    data = await manager.ask(query, {"id": str(folder.id)})
    assert data["vfolder"] == {"name": folder.name, "usage": None}


async def test_files_are_the_proxys(manager: Manager) -> None:
    folder = await manager.folder(manager.admin)
    manager.proxy.files = [
        {"path": "a", "size": 0, "is_directory": True, "modified_at": "2026-01-02T03:04:05Z"},
        {
            "path": "b.bin",
            "size": 5_000_000_000,
            "is_directory": False,
            "modified_at": "2026-01-02T03:04:05Z",
        },
    ]
    found = (await manager.ask(FILES, {"id": str(folder.id)}))["vfolderFiles"]
    assert found[1] == {
        "path": "b.bin",
        "size": "5000000000",
        "isDirectory": False,
        "modifiedAt": "2026-01-02T03:04:05+00:00",
    }
    error = await manager.refusal(FILES, {"id": str(folder.id), "path": "../x"})
    assert error["extensions"] == {"code": "PATH_REFUSED", "field": "path"}


async def test_volumes_are_hosts(manager: Manager) -> None:
    query = "{ volumes { host backend capabilities totalBytes usedBytes } }"
    assert await manager.ask(query, by=await manager.person()) == {
        "volumes": [
            {
                "host": "local:volume1",
                "backend": "vfs",
                "capabilities": ["quota"],
                "totalBytes": str(1 << 40),
                "usedBytes": None,
            }
        ]
    }
    manager.proxy.down = True
    assert await manager.ask(query) == {"volumes": []}


async def test_folders_of_projects_cost_one_statement_more(manager: Manager) -> None:
    async def cost() -> int:
        with manager.statements() as seen:
            await manager.ask("{ vfolders(first: 50) { count edges { node { name project { name } } } } }")
        return len(seen)

    async def with_projects(number: int) -> None:
        for index in range(number):
            project = Project(name=f"{number}-{index}")
            await manager.add(project)
            await manager.add(ProjectMember(project_id=project.id, user_id=manager.admin.id))
            await manager.folder(
                manager.admin,
                f"{number}-{index}",
                user_id=None,
                project_id=project.id,
                ownership_type=VFolderOwnershipType.GROUP,
            )

    await with_projects(1)
    one = await cost()
    await with_projects(20)
    assert await cost() == one == 4  # the caller, the page, its count, the projects
