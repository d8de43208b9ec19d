"""`stowage folder share` and what follows: letting others use a folder."""

from typing import Annotated, Literal

import typer

from stowage.administration import Administration, Invitation
from stowage.client import connect
from stowage.commands import epilog
from stowage.commands.imports import Json
from stowage.commands.names import Address, FolderName
from stowage.commands.output import local_time, note, print_facts, print_json, print_table

sharing = typer.Typer(rich_markup_mode=None)

_PERMISSIONS = {"ro": "READ_ONLY", "rw": "READ_WRITE", "wd": "RW_DELETE"}
_SHORT = {name: short for short, name in _PERMISSIONS.items()}
WhichInvitation = Annotated[
    str,
    typer.Argument(metavar="INVITATION", show_default=False, help="Its id, or the name of the folder."),
]


@sharing.command(
    epilog=epilog(
        ("stowage folder share models bob@example.org", "to be read"),
        ("stowage folder share models bob@example.org --permission rw", "and written to"),
        notes="""
        Whoever has the address accepts with `stowage folder accept`. For somebody who has the folder already, the
        permission changes at once. Only the owner of a folder and administrators can share it.
        """,
    )
)
def share(
    name: FolderName,
    address: Address,
    *,
    permission: Annotated[
        Literal["ro", "rw", "wd"],
        typer.Option(help="Read, read and write, or also delete the folder."),
    ] = "ro",
    as_json: Json = False,
) -> None:
    """Let somebody else use a folder of yours."""
    wanted, address = _PERMISSIONS[permission], address.lower()
    with connect() as client:
        office, found = Administration(client), client.vfolder(name)
        guests = {each["user"]["email"]: each["user"]["id"] for each in office.shares(found["id"])}
        if address in guests:
            changed = office.set_permission(found["id"], guests[address], wanted)
            if as_json:
                print_json(changed)
            else:
                note(f"{address} may use {found['name']} with {permission} from now on.")
            return
        sent = office.invite(found["id"], address, wanted)
    if as_json:
        print_json(sent)
        return
    _show(sent)
    note(f"{address} accepts it with: stowage folder accept {sent['id']}")


@sharing.command(
    epilog=epilog(
        ("stowage folder shares models", "who has it, and who was invited"),
        ("stowage folder shares models --json", ""),
    )
)
def shares(name: FolderName, *, as_json: Json = False) -> None:
    """List who else uses a folder, and whose answer is awaited."""
    with connect() as client:
        office, found = Administration(client), client.vfolder(name)
        given = list(office.shares(found["id"]))
        waiting = list(office.invitations(received=False, vfolder_id=found["id"], state=["PENDING"]))
    if as_json:
        print_json({"shares": given, "invitations": waiting})
        return
    print_table(
        ["ADDRESS", "PERMISSION", "STATE"],
        [
            *([each["user"]["email"], _SHORT[each["permission"]], "shared"] for each in given),
            *([each["email"], _SHORT[each["permission"]], "invited"] for each in waiting),
        ],
    )


@sharing.command(
    epilog=epilog(
        ("stowage folder invitations", "those that wait for you"),
        ("stowage folder invitations --all --json", "those that were answered too"),
    )
)
def invitations(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were answered.")] = False,
    as_json: Json = False,
) -> None:
    """List the invitations to folders of others that you got."""
    with connect() as client:
        found = list(
            Administration(client).invitations(received=True, state=None if everything else ["PENDING"])
        )
    if as_json:
        print_json(found)
        return
    print_table(
        ["FOLDER", "ID", "FROM", "PERMISSION", "STATE", "SENT"],
        [
            [
                each["vfolderName"],
                each["id"],
                each["inviter"]["email"],
                _SHORT[each["permission"]],
                each["state"].lower(),
                local_time(each["createdAt"]),
            ]
            for each in found
        ],
        spare=["SENT", "STATE", "FROM"],
    )


@sharing.command(
    epilog=epilog(
        ("stowage folder accept models", "by the folder's name"),
        ("stowage folder accept 8c1d4a52-0d34-4d8b-a5a0-6c0f3a7be9d2", "by its id"),
    )
)
def accept(invitation: WhichInvitation, *, as_json: Json = False) -> None:
    """Accept an invitation: you can use the folder from now on."""
    with connect() as client:
        office = Administration(client)
        answered = office.accept(office.invitation(invitation)["id"])
    _answered(answered, as_json=as_json)


@sharing.command(epilog=epilog(("stowage folder reject models", "the invitation to the folder of that name")))
def reject(invitation: WhichInvitation, *, as_json: Json = False) -> None:
    """Reject an invitation."""
    with connect() as client:
        office = Administration(client)
        answered = office.reject(office.invitation(invitation)["id"])
    _answered(answered, as_json=as_json)


@sharing.command(
    epilog=epilog(
        ("stowage folder revoke models bob@example.org", "bob can use it no more"),
        notes="It ends an invitation that waits too. Imports of that user into the folder publish nothing any more.",
    )
)
def revoke(name: FolderName, address: Address, *, as_json: Json = False) -> None:
    """Take a folder back from somebody."""
    with connect() as client:
        found = client.vfolder(name)
        Administration(client).revoke_share(found["id"], address)
    if as_json:
        print_json({"id": found["id"], "name": found["name"], "revoked": address.lower()})
    else:
        note(f"{address.lower()} can use {found['name']} no more.")


@sharing.command(epilog=epilog(("stowage folder leave models", "a folder that somebody shared with you")))
def leave(name: FolderName, *, as_json: Json = False) -> None:
    """Give up a folder that somebody shared with you."""
    with connect() as client:
        found = client.vfolder(name)
        Administration(client).leave(found["id"])
    if as_json:
        print_json({"id": found["id"], "name": found["name"], "left": True})
    else:
        note(f"You can use {found['name']} no more.")


def _answered(invitation: Invitation, *, as_json: bool) -> None:
    if as_json:
        print_json(invitation)
    else:
        _show(invitation)


def _show(invitation: Invitation) -> None:
    print_facts(
        [
            ("folder", invitation["vfolderName"]),
            ("invitation", invitation["id"]),
            ("address", invitation["email"]),
            ("permission", _SHORT[invitation["permission"]]),
            ("state", invitation["state"].lower()),
        ]
    )
