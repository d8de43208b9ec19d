"""`stowage audit`: what was done, and by whom."""

import json
from itertools import islice
from typing import Annotated

import typer

from stowage.administration import Administration
from stowage.client import connect
from stowage.commands import epilog, help_without_command
from stowage.commands.imports import Json
from stowage.commands.names import OfUser
from stowage.commands.output import local_time, print_json, print_table

app = typer.Typer(rich_markup_mode=None)
audit = typer.Typer(
    name="audit",
    invoke_without_command=True,
    callback=help_without_command,
    help="See who did what (administrators).",
)
app.add_typer(audit)


@audit.command(
    "list",
    epilog=epilog(
        ("stowage audit list", "the newest"),
        ("stowage audit list --action vfolder. --user ann@example.org", "what she did to folders"),
        ("stowage audit list --limit 1000 --json", ""),
    ),
)
def list_(
    *,
    user: OfUser = None,
    action: Annotated[
        str | None,
        typer.Option(metavar="ACTION", help="Only this one, or with a dot at its end those of one thing."),
    ] = None,
    subject: Annotated[str | None, typer.Option(metavar="ID", help="Only what was done to this.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only then or later, as in 2027-01-31T12:00.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="As many at most.")] = 50,
    as_json: Json = False,
) -> None:
    """List what was done, the newest first."""
    with connect() as client:
        actor = None if user is None else client.user_id(user)
        found = list(
            islice(
                Administration(client).audit(actor_id=actor, action=action, subject=subject, since=since),
                limit,
            )
        )
    if as_json:
        print_json(found)
        return
    print_table(
        ["AT", "WHO", "ACTION", "SUBJECT", "DETAILS"],
        [
            [
                local_time(each["at"]),
                each["actor"]["email"] if each["actor"] else "-",
                each["action"],
                each["subject"],
                "" if each["details"] is None else json.dumps(each["details"], ensure_ascii=False),
            ]
            for each in found
        ],
        spare=["DETAILS"],
    )
