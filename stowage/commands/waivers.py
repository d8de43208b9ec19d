"""`stowage waiver`: findings of verifiers that do not stand in the way of a model."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from stowage.administration import Administration, Waiver
from stowage.client import connect
from stowage.commands import epilog, help_without_command
from stowage.commands.imports import Json
from stowage.commands.output import local_time, note, print_facts, print_json, print_table
from stowage.commands.tokens import end_of

app = typer.Typer(rich_markup_mode=None)
waiver = typer.Typer(
    name="waiver",
    invoke_without_command=True,
    callback=help_without_command,
    help="List, make and revoke waivers of what verifiers find (administrators).",
)
app.add_typer(waiver)

Registry = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Its registry, if several have it.", show_default="not set"),
]


@waiver.command(
    "list",
    epilog=epilog(
        ("stowage waiver list", "those in force"),
        ("stowage waiver list --model sample/tiny-bert --all", "one model's, all"),
    ),
)
def list_(
    *,
    model: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Only this model's.", show_default="not set")
    ] = None,
    registry: Registry = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    as_json: Json = False,
) -> None:
    """List waivers, the newest first."""
    with connect() as client:
        artifact_id = None if model is None else client.artifact(model, registry, None)["id"]
        office = Administration(client)
        found = list(office.waivers(artifact_id, in_force=None if everything else True))
    if as_json:
        print_json(found)
        return
    print_table(
        ["MODEL", "PASSES", "UNTIL", "BY", "WHY", "ID"],
        [
            [
                each["artifact"]["name"],
                _what(each),
                local_time(each["revokedAt"] or each["expiresAt"]),
                each["createdBy"]["email"],
                each["reason"],
                each["id"],
            ]
            for each in found
        ],
        spare=["BY", "WHY"],
    )


@waiver.command(
    epilog=epilog(
        (
            'stowage waiver create sample/tiny-bert structure --until 30d --reason "signed"',
            "",
        ),
        notes="""
        It holds for all revisions of the model, from the next import on, and is looked at again before an import
        publishes. Findings that pass stay in the report, with the waiver's id. A file that could not be looked at,
        and bytes that are not the registry's, cannot be waived.
        """,
    )
)
def create(
    model: Annotated[
        str,
        typer.Argument(metavar="ORG/NAME", show_default=False, help="The model in whose files they pass."),
    ],
    verifier: Annotated[
        str, typer.Argument(metavar="VERIFIER", show_default=False, help="The verifier that finds them.")
    ],
    *,
    until: Annotated[
        str, typer.Option(metavar="WHEN", help="When it ends: 12h, 30d, or a date as 2027-01-31.")
    ],
    reason: Annotated[str, typer.Option(help="Why they may pass.")],
    rule: Annotated[
        str | None, typer.Option(help="Only findings of this rule.", show_default="every rule")
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="Only findings in this file.", show_default="every file")
    ] = None,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Let what a verifier finds in a model's files pass, for a while."""
    expires_at = end_of(until, datetime.now(UTC), field="--until").isoformat()
    with connect() as client:
        made = Administration(client).create_waiver(
            client.artifact(model, registry, None)["id"],
            verifier=verifier,
            rule=rule,
            file=file,
            reason=reason,
            expires_at=expires_at,
        )
    if as_json:
        print_json(made)
        return
    print_facts(
        [
            ("waiver", made["id"]),
            ("model", made["artifact"]["name"]),
            ("passes", _what(made)),
            ("until", local_time(made["expiresAt"])),
            ("why", made["reason"]),
        ]
    )


@waiver.command(epilog=epilog(("stowage waiver revoke 8c1d4a52-0d34-4d8b-a5a0-6c0f3a7be9d2", "")))
def revoke(
    waiver_id: Annotated[
        str, typer.Argument(metavar="ID", show_default=False, help="As `stowage waiver list` prints it.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """End a waiver now; what was published by it stays."""
    with connect() as client:
        revoked = Administration(client).revoke_waiver(waiver_id)
    if as_json:
        print_json(revoked)
    else:
        note(f"{_what(revoked)} of {revoked['artifact']['name']} stands in the way again.")


def _what(found: Waiver) -> str:
    rule = found["rule"] or "all"
    where = f" in {found['file']}" if found["file"] else ""
    return f"{found['verifier']}: {rule}{where}"
