"""`stowage token`: what lets a user in."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from proxy_client.errors import BadRequest
from stowage.administration import Administration
from stowage.client import connect
from stowage.commands import epilog, help_without_command
from stowage.commands.imports import Json
from stowage.commands.output import local_time, note, print_json, print_table

app = typer.Typer(rich_markup_mode=None)
token = typer.Typer(
    name="token",
    invoke_without_command=True,
    callback=help_without_command,
    help="Make, list, replace and revoke tokens.",
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

TokenId = Annotated[
    str, typer.Argument(metavar="ID", show_default=False, help="The token's id (not the token).")
]
Expires = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="When it ends: 12h, 30d, 8w, or a date such as 2027-01-31.",
        show_default="never, or as the one that it replaces",
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
    expires: Expires = None,
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
        ("stowage token rotate 8c1d4a52-0d34-4d8b-a5a0-6c0f3a7be9d2", "at once"),
        ("stowage token rotate 8c1d4a52-0d34-4d8b-a5a0-6c0f3a7be9d2 --keep 12h", "later"),
        notes="""
        The new token has the name of the old one and lives as long as that was to live. It is all that stdout gets, as
        with `stowage token create`.
        """,
    )
)
def rotate(
    token_id: TokenId,
    *,
    expires: Expires = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="Until when the old one is accepted too.", show_default="refused at once"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replace a token by a new one, and print that, this once."""
    _insist_on_id(token_id)
    now = datetime.now(UTC)
    expires_at = None if expires is None else end_of(expires, now).isoformat()
    keep_until = None if keep is None else end_of(keep, now, field="--keep").isoformat()
    with connect() as client:
        new_id, value = Administration(client).rotate_token(
            token_id, expires_at=expires_at, keep_until=keep_until
        )
    if as_json:
        print_json({"id": new_id, "token": value, "replaces": token_id, "keptUntil": keep_until})
        return
    typer.echo(value)
    kept = "is refused from now on" if keep_until is None else f"is accepted until {local_time(keep_until)}"
    note(
        f"Keep it: it is not shown again. The old token {kept}. To end the new one: stowage token revoke {new_id}"
    )


@token.command(
    epilog=epilog(
        ("stowage token expire 8c1d4a52-0d34-4d8b-a5a0-6c0f3a7be9d2 30d", "in a month"),
        ("stowage token expire 8c1d4a52-0d34-4d8b-a5a0-6c0f3a7be9d2 never", ""),
    )
)
def expire(
    token_id: TokenId,
    when: Annotated[
        str,
        typer.Argument(
            metavar="WHEN",
            show_default=False,
            help="12h, 30d, 8w, a date such as 2027-01-31, or never.",
        ),
    ],
    *,
    as_json: Json = False,
) -> None:
    """Say when a token ends that is accepted now."""
    _insist_on_id(token_id)
    expires_at = None if when == "never" else end_of(when, datetime.now(UTC), field="WHEN").isoformat()
    with connect() as client:
        changed = Administration(client).expire_token(token_id, expires_at)
    if as_json:
        print_json(changed)
    else:
        ends = "never" if changed["expiresAt"] is None else local_time(changed["expiresAt"])
        note(f"The token {changed['name']} ends {ends}.")


@token.command(
    epilog=epilog(
        ("stowage token revoke 8c1d4a52-0d34-4d8b-a5a0-6c0f3a7be9d2", ""),
        notes="`stowage token list` shows the ids. It is refused from the next request on, and stays so.",
    )
)
def revoke(
    token_id: TokenId,
    *,
    as_json: Json = False,
) -> None:
    """End a token of yours, or as an administrator anybody's."""
    _insist_on_id(token_id)
    with connect() as client:
        client.revoke_token(token_id)
    if as_json:
        print_json({"id": token_id, "revoked": True})
    else:
        note(f"The token {token_id} is refused from now on.")


def _insist_on_id(token_id: str) -> None:
    if token_id.startswith("stw_"):
        raise BadRequest(
            "this is the token itself; name its id, which `stowage token list` shows", field="ID"
        )


def end_of(text: str, now: datetime, *, field: str = "--expires") -> datetime:
    """Read `12h`, `30d`, `8w` from now on, or a date or time of ISO 8601, which is this machine's without a zone.

    Raises `BadRequest`.
    """
    if span := _SPAN.fullmatch(text):
        return now + int(span[1]) * _UNITS[span[2]]
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as exc:
        raise BadRequest(
            f"{text!r} is no end; write 12h, 30d or 8w, or a date such as 2027-01-31", field=field
        ) from exc
