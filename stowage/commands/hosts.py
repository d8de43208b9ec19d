"""`stowage host`: what may be done on volumes, and by whom."""

from typing import Annotated

import typer

from proxy_client.errors import BadRequest
from stowage.administration import Administration, HostPermission
from stowage.client import connect
from stowage.commands import epilog, help_without_command
from stowage.commands.imports import Json
from stowage.commands.names import OfProject, OfUser
from stowage.commands.output import print_facts, print_json, print_table

app = typer.Typer(rich_markup_mode=None)
host = typer.Typer(
    name="host",
    invoke_without_command=True,
    callback=help_without_command,
    help="List, give and take permissions on volumes (administrators).",
)
app.add_typer(host)

Host = Annotated[str, typer.Argument(metavar="PROXY:VOLUME", show_default=False, help="The volume.")]
_ALL = ["create-vfolder", "upload-file", "download-file", "delete-vfolder"]
Permissions = Annotated[
    list[str],
    typer.Argument(metavar="PERMISSION...", show_default=False, help=f"{', '.join(_ALL)}, or all."),
]


@host.command(
    "list",
    epilog=epilog(
        ("stowage host list", "all"),
        ("stowage host list --host local:volume2 --json", "one volume's"),
    ),
)
def list_(
    *,
    name: Annotated[
        str | None, typer.Option("--host", metavar="PROXY:VOLUME", help="Only this volume.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what is permitted on volumes."""
    with connect() as client:
        found = list(Administration(client).host_permissions(name))
    if as_json:
        print_json(found)
        return
    print_table(
        ["HOST", "WHO", "PERMISSIONS"], [[each["host"], _who(each), _permitted(each)] for each in found]
    )


@host.command(
    epilog=epilog(
        ("stowage host grant local:volume2 all", "for everybody"),
        ("stowage host grant local:volume3 upload-file --project research", "for members"),
        notes="What is permitted to everybody, to a user and to the user's projects adds up.",
    )
)
def grant(
    name: Host,
    permissions: Permissions,
    *,
    user: OfUser = None,
    project: OfProject = None,
    as_json: Json = False,
) -> None:
    """Permit more on a volume, to everybody unless told otherwise."""
    _change(name, permissions, user, project, grant=True, as_json=as_json)


@host.command(
    epilog=epilog(
        ("stowage host revoke local:volume2 create-vfolder", "from everybody"),
        ("stowage host revoke local:volume2 all --user ann@example.org", "from her alone"),
    )
)
def revoke(
    name: Host,
    permissions: Permissions,
    *,
    user: OfUser = None,
    project: OfProject = None,
    as_json: Json = False,
) -> None:
    """Permit less on a volume, to everybody unless told otherwise."""
    _change(name, permissions, user, project, grant=False, as_json=as_json)


def _change(
    name: str,
    permissions: list[str],
    user: str | None,
    project: str | None,
    *,
    grant: bool,
    as_json: bool,
) -> None:
    if unknown := [each for each in permissions if each not in {*_ALL, "all"}]:
        raise BadRequest(
            f"{unknown[0]!r} is no permission; name some of {', '.join(_ALL)}, or all", field="PERMISSION"
        )
    wanted = [each for each in _ALL if each in permissions or "all" in permissions]
    with connect() as client:
        office = Administration(client)
        changed = office.change_host(
            name,
            [each.upper().replace("-", "_") for each in wanted],
            user_id=None if user is None else client.user_id(user),
            project_id=office.project_id(project),
            grant=grant,
        )
    if as_json:
        print_json(changed)
        return
    print_facts([("host", changed["host"]), ("who", _who(changed)), ("permissions", _permitted(changed))])


def _who(found: HostPermission) -> str:
    if found["user"]:
        return found["user"]["email"]
    return f"members of {found['project']['name']}" if found["project"] else "everybody"


def _permitted(found: HostPermission) -> str:
    return ", ".join(each.lower().replace("_", "-") for each in found["permissions"]) or "nothing"
