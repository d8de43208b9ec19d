"""`stowage project`: users who own folders together."""

from typing import Annotated

import typer

from stowage.administration import Administration, Project
from stowage.client import connect
from stowage.commands import epilog, help_without_command
from stowage.commands.imports import Json
from stowage.commands.names import ProjectName, UserName
from stowage.commands.output import local_time, note, print_facts, print_json, print_table

app = typer.Typer(rich_markup_mode=None)
project = typer.Typer(
    name="project",
    invoke_without_command=True,
    callback=help_without_command,
    help="List projects, and make them with their members (administrators).",
)
app.add_typer(project)


@project.command(
    "list",
    epilog=epilog(
        ("stowage project list", "yours; an administrator's are all"),
        ("stowage project list --search lab --json", ""),
    ),
)
def list_(
    *,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only names that hold this text.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the projects."""
    with connect() as client:
        projects = list(Administration(client).projects(search))
    if as_json:
        print_json(projects)
        return
    print_table(
        ["NAME", "ID", "TYPE", "CREATED"],
        [[each["name"], each["id"], _kind(each), local_time(each["createdAt"])] for each in projects],
        spare=["CREATED", "TYPE"],
    )


@project.command(
    epilog=epilog(
        ("stowage project create research", "whose folders its members alone see"),
        ("stowage project create models --model-store", "whose folders everybody may read"),
        ("stowage project add research ann@example.org", "then: a member"),
        ("stowage folder create corpora --project research", "and a folder"),
    )
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The new project's name.")],
    *,
    model_store: Annotated[
        bool, typer.Option("--model-store", help="Everybody may read its folders.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a project."""
    with connect() as client:
        made = Administration(client).create_project(name, "MODEL_STORE" if model_store else "GENERAL")
    if as_json:
        print_json(made)
        return
    print_facts([("project", made["name"]), ("id", made["id"]), ("type", _kind(made))])


@project.command(
    epilog=epilog(
        ("stowage project delete research", "after its folders were deleted"),
        notes="Memberships, permissions on hosts and quotas of the project go with it.",
    )
)
def delete(name: ProjectName, *, as_json: Json = False) -> None:
    """Delete a project that owns no folders any more."""
    with connect() as client:
        office = Administration(client)
        found = office.project(name)
        office.delete_project(found["id"])
    if as_json:
        print_json(found)
    else:
        note(f"Deleted project {found['name']}.")


@project.command(epilog=epilog(("stowage project members research", "by address")))
def members(name: ProjectName, *, as_json: Json = False) -> None:
    """List the members of a project."""
    with connect() as client:
        office = Administration(client)
        found = list(office.members(office.project(name)["id"]))
    if as_json:
        print_json(found)
        return
    print_table(
        ["ADDRESS", "ID", "STATUS"],
        [[each["email"], each["id"], each["status"].lower()] for each in found],
        spare=["STATUS"],
    )


@project.command(
    epilog=epilog(
        ("stowage project add research ann@example.org", "she may write to its folders from now on"),
    )
)
def add(name: ProjectName, who: UserName, *, as_json: Json = False) -> None:
    """Make a user a member of a project."""
    with connect() as client:
        office = Administration(client)
        found = office.project(name)
        office.add_member(found["id"], client.user_id(who))
    _changed(found, who, "is a member of", as_json=as_json)


@project.command(
    epilog=epilog(
        ("stowage project remove research ann@example.org", "she sees its folders no more"),
        notes="What the user was permitted on single folders of the project ends too.",
    )
)
def remove(name: ProjectName, who: UserName, *, as_json: Json = False) -> None:
    """End a user's membership in a project."""
    with connect() as client:
        office = Administration(client)
        found = office.project(name)
        office.remove_member(found["id"], client.user_id(who))
    _changed(found, who, "is no member of", as_json=as_json)


def _changed(found: Project, who: str, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(found | {"user": who})
    else:
        note(f"{who} {what} {found['name']} from now on.")


def _kind(found: Project) -> str:
    return found["type"].lower().replace("_", "-")
