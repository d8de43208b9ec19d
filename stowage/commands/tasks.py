"""`stowage task`: the imports that were ordered."""

import enum
import time
from typing import Annotated

import typer

from proxy_client.errors import Unavailable
from stowage.administration import Administration
from stowage.client import connect
from stowage.commands import epilog, help_without_command
from stowage.commands.completion import complete_task
from stowage.commands.following import FAILED, SUCCEEDED, destination_name, follow, print_task, report
from stowage.commands.imports import Json
from stowage.commands.output import human_size, local_time, note, print_json, print_table
from stowage.commands.waiting import TERMINAL, fraction, model_name, stage_name

app = typer.Typer(rich_markup_mode=None)
task = typer.Typer(
    name="task",
    invoke_without_command=True,
    callback=help_without_command,
    help="List, watch, cancel and retry imports.",
)
app.add_typer(task)

# A cancel stops the traffic within a second; a manager or proxy that is just down takes longer.
CANCEL_PATIENCE = 10.0

TaskId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        show_default=False,
        help="The task's id, as `stowage import` prints it.",
        autocompletion=complete_task,
    ),
]


class State(enum.StrEnum):
    """The states of an import, as people type them."""

    PENDING = "pending"
    RUNNING = "running"
    NEEDS_APPROVAL = "needs_approval"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@task.command(
    "list",
    epilog=epilog(
        ("stowage task list", "the newest 20"),
        ("stowage task list --status running --status pending", "what is going on"),
        ("stowage task list --folder models --limit 5 --json", ""),
    ),
)
def list_(
    *,
    status: Annotated[
        list[State] | None, typer.Option(help="Only imports in this state; may be repeated.")
    ] = None,
    folder: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Only imports into this folder (name or id).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the imports that you can see, the newest first."""
    with connect() as client:
        vfolder_id = None if folder is None else client.vfolder(folder)["id"]
        states = [state.upper() for state in status or []]
        tasks, count = client.import_tasks(status=states, vfolder_id=vfolder_id, limit=limit)
    if as_json:
        print_json(tasks)
        return
    print_table(
        ["ID", "MODEL", "INTO", "STATE", "DONE", "SIZE", "ORDERED"],
        [
            [
                found["id"],
                model_name(found),
                destination_name(found),
                stage_name(found),
                "-" if (done := fraction(found)) is None else f"{done:.0%}",
                human_size(found["bytesTotal"]),
                local_time(found["createdAt"]),
            ]
            for found in tasks
        ],
        right=["DONE", "SIZE"],
        spare=["ORDERED", "SIZE", "INTO", "DONE"],
    )
    if len(tasks) < count:
        note(f"{len(tasks)} of {count}; --limit shows more")


@task.command(
    epilog=epilog(
        ("stowage task show 3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11", ""),
        ("stowage task show 3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11 --json", ""),
    )
)
def show(task_id: TaskId, *, as_json: Json = False) -> None:
    """Show everything about one import."""
    with connect() as client:
        found = client.import_task(task_id)
    if as_json:
        print_json(found)
    else:
        print_task(found)


@task.command(
    epilog=epilog(
        ("stowage task watch 3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11", ""),
        notes="""
        Ctrl-C leaves the import running. Exit status: 0 the import succeeded, 1 it failed or was cancelled.
        """,
    )
)
def watch(task_id: TaskId, *, as_json: Json = False) -> int:
    """Wait until an import ends, and show how it goes."""
    with connect() as client:
        return follow(client, client.import_task(task_id), as_json=as_json)


@task.command(
    epilog=epilog(
        ("stowage task approve 3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11", ""),
        notes="""
        `stowage task show` tells what was found. The files are read and verified again before they are published; what
        is found then, and was not before, has to be approved anew.
        """,
    )
)
def approve(task_id: TaskId, *, as_json: Json = False) -> None:
    """Publish an import that waits for an approval (administrators)."""
    with connect() as client:
        Administration(client).approve_import(task_id)
        found = client.import_task(task_id)
    if as_json:
        print_json(found)
    else:
        note(f"The import of {model_name(found)} is approved. Watch it: stowage task watch {task_id}")


@task.command(
    epilog=epilog(
        ("stowage task reject 3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11", ""),
        ('stowage task reject 3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11 --reason "unknown"', ""),
    )
)
def reject(
    task_id: TaskId,
    *,
    reason: Annotated[
        str | None, typer.Option(help="Why, for whoever ordered it.", show_default="not said")
    ] = None,
    as_json: Json = False,
) -> None:
    """End an import that waits for an approval; nothing of it is published (administrators)."""
    with connect() as client:
        Administration(client).reject_import(task_id, reason)
        found = client.import_task(task_id)
    if as_json:
        print_json(found)
    else:
        note(f"The import of {model_name(found)} is rejected.")


@task.command(
    epilog=epilog(
        ("stowage task cancel 3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11", ""),
        notes="""
        Nothing of a cancelled import is left in the destination. Exit status: 0 it is cancelled (asked for, with
        --no-wait), 1 it had ended otherwise before.
        """,
    )
)
def cancel(
    task_id: TaskId,
    *,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until it has stopped, or only ask for it.")
    ] = True,
    as_json: Json = False,
) -> int:
    """Stop an import; the destination stays as it was."""
    with connect() as client:
        found = client.cancel(task_id)
        until = time.monotonic() + CANCEL_PATIENCE
        while wait and found["status"] not in TERMINAL:
            if time.monotonic() > until:
                raise Unavailable(
                    "the cancel is ordered, but the import has not stopped yet; look again with `stowage task show`"
                )
            time.sleep(0.2)
            found = client.import_task(task_id)
    if as_json:
        print_json(found)
    elif found["status"] in TERMINAL - {"CANCELLED"}:
        note(f"The import of {model_name(found)} had {found['status'].lower()} before.")
    elif found["status"] == "CANCELLED":
        note(f"The import of {model_name(found)} is cancelled.")
    else:
        note(f"The import of {model_name(found)} is asked to stop.")
    return FAILED if found["status"] in {"SUCCEEDED", "FAILED"} else SUCCEEDED


@task.command(
    epilog=epilog(
        ("stowage task retry 3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11", ""),
        ("stowage task retry 3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11 --no-wait", "order it and go on"),
        notes="""
        Orders anew what the import was to bring: the same revision, to the same place, with the same options. It is a
        new task with an id of its own, as if you had just asked for it, and brings the commit that the last scan
        saw.

        Exit status: 0 imported (ordered, with --no-wait), 1 it failed or was cancelled again, 2 there is nothing to
        retry: the import is open or succeeded.
        """,
    )
)
def retry(
    task_id: TaskId,
    *,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the import ends, or only order it.")
    ] = True,
    as_json: Json = False,
) -> int:
    """Import again what failed or was cancelled."""
    with connect() as client:
        again = client.retry(task_id)
        if wait:
            return follow(client, again, as_json=as_json)
        report(client, again, as_json=as_json)
        return SUCCEEDED
