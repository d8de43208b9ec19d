"""What a shell may complete: asked of the manager, quickly, and nothing where it gives no answer."""

from itertools import islice

from proxy_client.errors import StowageError

_PATIENCE = 2.0
_MOST = 50


def complete_folder(incomplete: str) -> list[str]:
    """Return the names of folders that begin as the word does."""
    from stowage.client import StowageClient, find_stack  # noqa: PLC0415 -- only a shell that asks needs it

    try:
        with StowageClient(find_stack(), timeout=_PATIENCE) as client:
            names = (folder["name"] for folder in client.vfolders(search=incomplete or None))
            return list(islice((name for name in names if name.startswith(incomplete)), _MOST))
    except StowageError:
        return []


def complete_task(incomplete: str) -> list[tuple[str, str]]:
    """Return the newest tasks whose ids begin as the word does, each with its model and state."""
    from stowage.client import StowageClient, find_stack  # noqa: PLC0415 -- as above

    try:
        with StowageClient(find_stack(), timeout=_PATIENCE) as client:
            tasks, _count = client.import_tasks(status=None, vfolder_id=None, limit=_MOST)
    except StowageError:
        return []
    return [
        (task["id"], f"{task['artifactRevision']['artifact']['name']} {task['status'].lower()}")
        for task in tasks
        if task["id"].startswith(incomplete)
    ]
