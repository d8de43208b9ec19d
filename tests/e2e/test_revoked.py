"""What is taken away while an import runs: it fails, and nothing of it is visible. All by the doors that clients have."""

import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.world import Files, Folder, Person, World, wait_until
from tests.faults.hub import Rule

FILES: Files = {"big.bin": 300_000, "config.json": b"{}"}


@dataclass
class Doors:
    """Short words for the mutations; the administrator's unless told otherwise."""

    world: World

    def change(self, door: str, kind: str, payload: str, by: Person | None = None, /, **asked: Any) -> Any:
        query = f"mutation ($input: {kind}!) {{ {door}(input: $input) {{ {payload} }} }}"
        return self.world.stack.graphql(query, {"input": asked}, token=(by or self.world.admin).token)[door]

    def email(self, person: Person) -> str:
        found = self.world.stack.graphql("{ me { email } }", token=person.token)["me"]["email"]
        assert isinstance(found, str)
        return found

    def status(self, person: Person, status: str) -> None:
        self.change("setUserStatus", "SetUserStatusInput", "user { id }", userId=person.id, status=status)

    def member(self, project: str, person: Person, verb: str) -> None:
        kind = f"{verb.capitalize()}ProjectMemberInput"
        self.change(f"{verb}ProjectMember", kind, "project { id }", projectId=project, userId=person.id)

    def host(self, verb: str, host: str, **whose: str) -> None:
        kind = f"{verb.capitalize()}HostPermissionsInput"
        asked: dict[str, Any] = {"host": host, "permissions": ["UPLOAD_FILE", "CREATE_VFOLDER"]} | whose
        self.change(f"{verb}HostPermissions", kind, "hostPermission { host }", **asked)


Case = tuple[Person, Folder, Callable[[], object]]


def the_user_is_inactive(world: World, doors: Doors) -> Case:
    owner = world.person()
    return owner, world.folder(owner), lambda: doors.status(owner, "INACTIVE")


def the_share_is_revoked(world: World, doors: Doors) -> Case:
    owner, guest = world.person(), world.person()
    folder = world.folder(owner)
    address = doors.email(guest)
    sent = doors.change(
        "inviteToVfolder",
        "InviteToVFolderInput",
        "invitation { id }",
        owner,
        vfolderId=folder.id,
        email=address,
        permission="READ_WRITE",
    )
    doors.change(
        "acceptVfolderInvitation",
        "AcceptVFolderInvitationInput",
        "invitation { state }",
        guest,
        id=sent["invitation"]["id"],
    )
    asked = {"vfolderId": folder.id, "email": address}
    return (
        guest,
        folder,
        lambda: doors.change(
            "revokeVfolderShare", "RevokeVFolderShareInput", "vfolder { id }", owner, **asked
        ),
    )


def the_permission_is_lowered(world: World, doors: Doors) -> Case:
    owner, guest = world.person(), world.person()
    folder = world.folder(owner)
    world.grant(folder, guest, "READ_WRITE")
    asked = {"vfolderId": folder.id, "userId": guest.id, "permission": "READ_ONLY"}
    return (
        guest,
        folder,
        lambda: doors.change(
            "setVfolderPermission", "SetVFolderPermissionInput", "share { permission }", owner, **asked
        ),
    )


def the_membership_ends(world: World, doors: Doors) -> Case:
    member = world.person()
    name = f"project of {member.id}"[:60]
    project = doors.change("createProject", "CreateProjectInput", "project { id }", name=name)["project"]
    doors.member(project["id"], member, "add")
    folder = world.folder(member, project=project["id"])
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o775
    return member, folder, lambda: doors.member(project["id"], member, "remove")


def the_host_is_closed(world: World, doors: Doors) -> Case:
    owner = world.person()
    doors.host("grant", "local:closed", userId=owner.id)
    folder = world.folder(owner, host="local:closed")
    return owner, folder, lambda: doors.host("revoke", "local:closed", userId=owner.id)


def the_folder_is_trashed(world: World, _doors: Doors) -> Case:
    owner = world.person()
    folder = world.folder(owner)
    # deleteVfolder waits for imports; a folder can be put into the trash by others.
    trash = "UPDATE vfolders SET status = 'DELETE_PENDING' WHERE id = $1"
    return owner, folder, lambda: world.rows(trash, folder.vfid.folder)


CASES = [
    the_user_is_inactive,
    the_share_is_revoked,
    the_permission_is_lowered,
    the_membership_ends,
    the_host_is_closed,
    the_folder_is_trashed,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_is_revoked_mid_way_publishes_nothing(
    world: World, case: Callable[[World, Doors], Case]
) -> None:
    person, folder, revoke = case(world, Doors(world))
    model = world.model(FILES)
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=1000))
    task_id = world.begin(model, folder, by=person)
    world.bytes_flow(model, 1000)

    revoke()
    world.hub.clear()
    task = world.finished(task_id)

    assert (task["status"], task["error"]["code"], task["step"]) == (
        "FAILED",
        "PERMISSION_REVOKED",
        "ARCHIVE",
    )
    world.insist_on_nothing_left(task, folder)


def test_a_grant_of_the_artifact_storage_that_is_withdrawn_mid_way_publishes_nothing(world: World) -> None:
    person, doors = world.person(), Doors(world)
    asked = {"userId": person.id, "permission": "ARTIFACT_IMPORT"}
    doors.change("grantUserPermission", "GrantUserPermissionInput", "user { id }", **asked)
    model = world.model(FILES)
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=1000))
    task_id = world.begin(model, by=person)
    world.bytes_flow(model, 1000)

    doors.change("revokeUserPermission", "RevokeUserPermissionInput", "user { id }", **asked)
    world.hub.clear()
    task = world.finished(task_id)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "PERMISSION_REVOKED")
    assert not any(list(storage.rglob(model.id)) for storage in world.storages())
    assert world.staged(task_id) == []


def test_what_is_revoked_before_the_start_moves_no_byte(world: World) -> None:
    """The order waits behind others in the queue; when its turn comes the manager is asked."""
    owner, doors = world.person(), Doors(world)
    folder, model = world.folder(owner), world.model(FILES)
    busy = [world.model(FILES) for _ in range(4)]
    world.hub.set(*(Rule(path=f"{each.id}/resolve/.*big.bin", stall_after=1000) for each in busy))
    for each in busy:  # as many as one worker runs
        world.begin(each, world.folder())
    wait_until(lambda: all(world.hub.sent(f"{each.id}/resolve") for each in busy), "they do not begin")
    task_id = world.begin(model, folder, by=owner)
    assert world.task(task_id)["status"] == "PENDING"

    doors.status(owner, "INACTIVE")
    world.hub.clear()
    task = world.finished(task_id)

    assert (task["status"], task["error"]["code"], task["step"]) == ("FAILED", "PERMISSION_REVOKED", None)
    assert world.hub.downloads(model.id) == []
    world.insist_on_nothing_left(task, folder)
