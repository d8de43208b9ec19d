"""`stowage user`: who may call Stowage."""

from typing import Annotated, Literal

import typer

from stowage.administration import Administration
from stowage.client import connect
from stowage.commands import epilog, help_without_command
from stowage.commands.imports import Json
from stowage.commands.names import UserName
from stowage.commands.output import local_time, note, print_facts, print_json, print_table
from stowage.documents import User

app = typer.Typer(rich_markup_mode=None)
user = typer.Typer(
    name="user",
    invoke_without_command=True,
    callback=help_without_command,
    help="Make, list, revoke and restore users, and say what they may do (administrators).",
)
app.add_typer(user)


@user.command(
    epilog=epilog(
        ("stowage user create ann@example.org", "a user with folders of her own"),
        ("stowage user create ops@example.org --admin", "one who may do everything"),
        ("stowage token create laptop --user ann@example.org", "then: her token"),
    )
)
def create(
    email: Annotated[
        str, typer.Argument(metavar="ADDRESS", show_default=False, help="The address of the new user.")
    ],
    *,
    admin: Annotated[bool, typer.Option("--admin", help="Make an administrator.")] = False,
    as_json: Json = False,
) -> None:
    """Make a user; a token lets the user in."""
    with connect() as client:
        made = client.create_user(email, role="ADMIN" if admin else "USER")
    _show(made, as_json=as_json)
    if not as_json:
        note(f"A token lets the user in: stowage token create NAME --user {made['email']}")


@user.command(
    "list",
    epilog=epilog(
        ("stowage user list", "everybody"),
        ("stowage user list --search example.org", "whose address holds that text"),
        ("stowage user list --json", ""),
    ),
)
def list_(
    *,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only addresses that hold this text.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the users."""
    with connect() as client:
        users = list(client.users(search=search))
    if as_json:
        print_json(users)
        return
    print_table(
        ["ADDRESS", "ID", "ROLE", "STATUS", "CREATED"],
        [
            [
                found["email"],
                found["id"],
                found["role"].lower(),
                found["status"].lower(),
                local_time(found["createdAt"]),
            ]
            for found in users
        ],
        spare=["CREATED", "ROLE", "STATUS"],
    )


@user.command(
    epilog=epilog(
        ("stowage user revoke ann@example.org", "her tokens are refused from now on"),
        ("stowage user restore ann@example.org", "and accepted again"),
        notes="""
        Nothing of the user's is deleted. Imports of the user's that run publish nothing any more. The last active
        administrator cannot be revoked.
        """,
    )
)
def revoke(who: UserName, *, as_json: Json = False) -> None:
    """Keep a user out: none of the user's tokens is accepted any more."""
    _set_status(who, "INACTIVE", as_json=as_json)


@user.command(
    epilog=epilog(
        ("stowage user restore ann@example.org", ""),
        notes="Tokens that were revoked one by one (`stowage token revoke`) stay so.",
    )
)
def restore(who: UserName, *, as_json: Json = False) -> None:
    """Let a user in again."""
    _set_status(who, "ACTIVE", as_json=as_json)


@user.command(
    epilog=epilog(
        ("stowage user role ann@example.org admin", "she may do everything"),
        ("stowage user role ann@example.org user", "and no more"),
        notes="It holds from her next request on. The last active administrator stays one.",
    )
)
def role(
    who: UserName,
    wanted: Annotated[
        Literal["user", "admin"], typer.Argument(metavar="ROLE", show_default=False, help="user or admin.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Make a user an administrator, or an administrator a user."""
    with connect() as client:
        found = Administration(client).set_role(client.user_id(who), wanted.upper())
    _show(found, as_json=as_json)


Permission = Annotated[
    Literal["artifact:import"],
    typer.Argument(metavar="PERMISSION", show_default=False, help="artifact:import"),
]


@user.command(
    epilog=epilog(
        ("stowage user grant ann@example.org artifact:import", "she may fill the artifact storage"),
    )
)
def grant(who: UserName, permission: Permission, *, as_json: Json = False) -> None:
    """Permit a user something beyond the role."""
    _change(who, permission, grant=True, as_json=as_json)


@user.command(epilog=epilog(("stowage user withdraw ann@example.org artifact:import", "and no more")))
def withdraw(who: UserName, permission: Permission, *, as_json: Json = False) -> None:
    """Take back what a user was permitted beyond the role."""
    _change(who, permission, grant=False, as_json=as_json)


def _change(who: str, permission: str, *, grant: bool, as_json: bool) -> None:
    with connect() as client:
        name = permission.upper().replace(":", "_")
        found = Administration(client).change_user(client.user_id(who), name, grant=grant)
    _show(found, as_json=as_json)


def _set_status(who: str, status: str, *, as_json: bool) -> None:
    with connect() as client:
        found = client.set_user_status(client.user_id(who), status)
    _show(found, as_json=as_json)


def _show(found: User, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_facts(
        [
            ("user", found["email"]),
            ("id", found["id"]),
            ("role", found["role"].lower()),
            ("status", found["status"].lower()),
        ]
    )
