"""`stowage quota`: what users, projects and the artifact storage may keep."""

import re
from typing import Annotated

import typer

from proxy_client.errors import BadRequest
from stowage.administration import Administration, Quota
from stowage.client import StowageClient, connect
from stowage.commands import epilog, help_without_command
from stowage.commands.imports import Json
from stowage.commands.names import OfProject, OfUser
from stowage.commands.output import human_size, local_time, print_facts, print_json, print_table

app = typer.Typer(rich_markup_mode=None)
quota = typer.Typer(
    name="quota",
    invoke_without_command=True,
    callback=help_without_command,
    help="Show what may be kept and what is, and set limits (administrators).",
)
app.add_typer(quota)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SIZE = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,3}))?([KMGTP]?)(?:i?B)?", re.IGNORECASE)

OfStorage = Annotated[
    str | None,
    typer.Option("--storage", metavar="NAME", help="The artifact storage.", show_default="not set"),
]
OnHost = Annotated[
    str | None,
    typer.Option("--host", metavar="PROXY:VOLUME", help="The volume.", show_default="the default volume"),
]


@quota.command(
    epilog=epilog(
        ("stowage quota show", "your own"),
        ("stowage quota show --project research", "a project's"),
        ("stowage quota show --storage archive", "the artifact storage's"),
        ("stowage quota show --user ann@example.org --host local:volume2", "hers"),
    )
)
def show(
    *,
    user: OfUser = None,
    project: OfProject = None,
    storage: OfStorage = None,
    host: OnHost = None,
    as_json: Json = False,
) -> None:
    """Show what may be kept somewhere, and what is."""
    with connect() as client:
        office = Administration(client)
        found = office.quota(
            user_id=_user_id(client, user), project_id=office.project_id(project), storage=storage, host=host
        )
    _show(found, as_json=as_json)


@quota.command(
    "list",
    epilog=epilog(("stowage quota list", "that were set for you; an administrator's are all")),
)
def list_(*, as_json: Json = False) -> None:
    """List the limits that were set, with what was last reported."""
    with connect() as client:
        quotas = list(Administration(client).quotas())
    if as_json:
        print_json(quotas)
        return
    print_table(
        ["OF", "WHERE", "LIMIT", "USED", "RESERVED", "LEFT", "REPORTED"],
        [
            [
                _whose(each),
                each["host"] or "artifact storage",
                human_size(each["limitBytes"]),
                human_size(each["usedBytes"]),
                human_size(each["reservedBytes"]),
                human_size(each["availableBytes"]),
                local_time(each["reportedAt"]),
            ]
            for each in quotas
        ],
        right=["LIMIT", "USED", "RESERVED", "LEFT"],
        spare=["REPORTED", "RESERVED", "WHERE"],
    )


@quota.command(
    "set",
    epilog=epilog(
        ("stowage quota set 500G --user ann@example.org", "a user's folders"),
        ("stowage quota set 2.5T --project research --host local:volume2", ""),
        ("stowage quota set 10T --storage archive", "the artifact storage"),
        ("stowage quota set none --user ann@example.org", "no limit any more"),
        notes="""
        It holds for new imports at once. A limit below what is kept removes nothing, and lets nothing more in. Units
        are binary: 1G is 1,073,741,824 bytes.
        """,
    ),
)
def set_(
    limit: Annotated[
        str, typer.Argument(metavar="LIMIT", show_default=False, help="Bytes, or as in 500G; none lifts it.")
    ],
    *,
    user: OfUser = None,
    project: OfProject = None,
    storage: OfStorage = None,
    host: OnHost = None,
    as_json: Json = False,
) -> None:
    """Limit what may be kept somewhere."""
    size = size_of(limit)
    if sum(each is not None for each in (user, project, storage)) != 1:
        raise BadRequest("name one of --user, --project and --storage", field="--user")
    with connect() as client:
        office = Administration(client)
        found = office.set_quota(
            size,
            user_id=_user_id(client, user),
            project_id=office.project_id(project),
            storage=storage,
            host=host,
        )
    _show(found, as_json=as_json)


def size_of(text: str) -> int | None:
    """Read `500G`, `2.5T`, `1024` or `none`, in binary units. Raises `BadRequest`."""
    if text.lower() == "none":
        return None
    found = _SIZE.fullmatch(text)
    if found is None or (found[2] and not found[3]):
        raise BadRequest(f"{text!r} is no limit; write bytes, 500G, 2.5T or none", field="LIMIT")
    unit, digits = _UNITS[found[3].upper()], found[2] or ""
    fraction = int(digits or 0) * unit // int(f"1{'0' * len(digits)}")
    return int(found[1]) * unit + fraction


def _user_id(client: StowageClient, user: str | None) -> str | None:
    return None if user is None else client.user_id(user)


def _whose(found: Quota) -> str:
    if found["user"]:
        return found["user"]["email"]
    return found["project"]["name"] if found["project"] else str(found["storageName"])


def _show(found: Quota, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    limit = found["limitBytes"]
    print_facts(
        [
            ("of", _whose(found)),
            ("host", found["host"]),
            ("limit", "none" if limit is None else human_size(limit)),
            ("used", human_size(found["usedBytes"])),
            ("reserved", human_size(found["reservedBytes"])),
            ("left", None if limit is None else human_size(found["availableBytes"])),
            ("reported", local_time(found["reportedAt"])),
        ]
    )
