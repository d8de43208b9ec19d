"""`stowage token`: what lets a user in."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from proxy_client.errors import BadRequest
from stowage.client import connect
from stowage.commands import epilog, help_without_command
from stowage.commands.imports import Json
from stowage.commands.output import local_time, note, print_json, print_table

app = typer.Typer(rich_markup_mode=None)
token = typer.Typer(
    name="token",
    invoke_without_command=True,
    callback=help_without_command,
    help="Make, list and revoke tokens.",
)
app.add_typer(token)

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SPAN = re.compile(r"([0-9]{1,4})([hdw])")

Whose = Annotated[
    str | None,
    typer.Option(
        "--user",
        metavar="USER",
        help="Whose: an address or id. Others' only for administrators.",
        show_default="your own",
    ),
]


@token.command(
    epilog=epilog(
        ("stowage token create laptop", "one of your own"),
        ("stowage token create ci --expires 30d", "which ends by itself"),
        ("stowage token create laptop --user ann@example.org", "for somebody else"),
        ("STOWAGE_TOKEN=$(stowage token create ci)", "into a variable"),
        notes="""
        The token is shown this once and kept nowhere. It is all that stdout gets, so that it can be piped; what else
        there is to say goes to stderr.
        """,
    )
)
def create(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", show_default=False, help="What it is for, so that it can be told from others."
        ),
    ],
    *,
    user: Whose = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="When it ends: 12h, 30d, 8w, or a date such as 2027-01-31.",
            show_default="never",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it, this once."""
    expires_at = None if expires is None else end_of(expires, datetime.now(UTC)).isoformat()
    with connect() as client:
        user_id = None if user is None else client.user_id(user)
        token_id, value = client.create_token(name, user_id=user_id, expires_at=expires_at)
    if as_json:
        print_json({"id": token_id, "token": value, "name": name, "expiresAt": expires_at})
        return
    typer.echo(value)
    ends = "" if expires_at is None else f" It ends {local_time(expires_at)}."
    note(f"Keep it: it is not shown again.{ends} To end it: stowage token revoke {token_id}")


@token.command(
    "list",
    epilog=epilog(
        ("stowage token list", "yours that are accepted"),
        ("stowage token list --all", "those that ended too"),
        ("stowage token list --user ann@example.org --json", "somebody else's"),
    ),
)
def list_(
    *,
    user: Whose = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that were revoked or have ended.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List tokens, the newest first; their values are kept nowhere."""
    with connect() as client:
        user_id = None if user is None else client.user_id(user)
        tokens = list(client.tokens(user_id, active=not everything))
    if as_json:
        print_json(tokens)
        return
    print_table(
        ["NAME", "ID", "USER", "CREATED", "ENDS", "REVOKED"],
        [
            [
                found["name"],
                found["id"],
                found["user"]["email"],
                local_time(found["createdAt"]),
                local_time(found["expiresAt"]),
                local_time(found["revokedAt"]),
            ]
            for found in tokens
        ],
        spare=["CREATED", "USER", "ENDS", "REVOKED"],
    )


@token.command(
    epilog=epilog(
        ("stowage token revoke 8c1d4a52-0d34-4d8b-a5a0-6c0f3a7be9d2", ""),
        notes="`stowage token list` shows the ids. It is refused from the next request on, and stays so.",
    )
)
def revoke(
    token_id: Annotated[
        str, typer.Argument(metavar="ID", show_default=False, help="The token's id (not the token).")
    ],
    *,
    as_json: Json = False,
) -> None:
    """End a token of yours, or as an administrator anybody's."""
    if token_id.startswith("stw_"):
        raise BadRequest(
            "this is the token itself; name its id, which `stowage token list` shows", field="ID"
        )
    with connect() as client:
        client.revoke_token(token_id)
    if as_json:
        print_json({"id": token_id, "revoked": True})
    else:
        note(f"The token {token_id} is refused from now on.")


def end_of(text: str, now: datetime) -> datetime:
    """Read `12h`, `30d`, `8w` from now on, or a date or time of ISO 8601, which is this machine's without a zone.

    Raises `BadRequest`.
    """
    if span := _SPAN.fullmatch(text):
        return now + int(span[1]) * _UNITS[span[2]]
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as exc:
        raise BadRequest(
            f"{text!r} is no end; write 12h, 30d or 8w, or a date such as 2027-01-31", field="--expires"
        ) from exc
