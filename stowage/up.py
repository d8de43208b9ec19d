"""`stowage up`: the embedded stack in the foreground, for people."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from rich.text import Text

from proxy_client.errors import StowageError
from stowage.client import StowageClient, find_stack
from stowage.commands.imports import DEFAULT_REVISION, parse_model
from stowage.commands.output import console, error, note, plain, print_facts
from stowage.data_dir import DataDir
from stowage.processes import CannotStart, dies_with_parent
from stowage.stack import Stack, StackOptions

DONE, FAILED = 0, 1
_GOODBYE = 1.0  # seconds


def up(data_dir: Path, listen: tuple[str, int], sample_hub: bool, import_model: str | None) -> int:
    """Run the stack until SIGTERM or Ctrl-C; return 0 then, 1 if it cannot run or the import failed.

    import_model: `ORG/NAME[@REVISION]`, imported into a model folder of that name once the stack is ready; without
    HF_ENDPOINT a sample comes from the sample hub, and so does any model at the first start on the directory. Raises
    `BadRequest` for a model or an endpoint that is none.
    """
    if import_model is not None:
        name, _version = parse_model(import_model)
        first = not DataDir(data_dir).state.exists()
        wants_sample = first or name.startswith("sample/")
        sample_hub = sample_hub or (wants_sample and not os.environ.get("HF_ENDPOINT"))
    options = StackOptions.from_environment(data_dir, *listen, sample_hub=sample_hub, environment=os.environ)
    return asyncio.run(_run(options, import_model))


async def _run(options: StackOptions, import_model: str | None) -> int:
    with _Screen() as screen:
        stack = Stack(options, screen.say)
        stopping = _stop_on_signals(stack)
        status = DONE
        try:
            if await _unless(stopping, stack.start()):
                screen.rest()
                screen.line("Stowage is ready.")
                _print_where(stack)
                if import_model is not None:
                    status = await _import(stack, import_model, stopping)
                screen.line("Stowage stays up until you press Ctrl-C.")
                await stopping.wait()
        except (CannotStart, StowageError) as exc:
            screen.rest()
            _print_error(exc)
            status = FAILED
        finally:
            if stopping.is_set():
                screen.say("Stopping")
            await stack.stop()
    return status


class _Screen:
    """One line a step in a pipe; on a terminal a line that moves until there is something to read."""

    def __init__(self) -> None:
        self._console = console()
        self._moving = self._console.status("") if self._console.is_terminal else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.rest()

    def say(self, text: str) -> None:
        """Name the step that begins, or what happens while the stack runs."""
        if self._moving is None:
            self.line(text)
        else:
            self._moving.update(Text(plain(text)))
            self._moving.start()

    def line(self, text: str) -> None:
        """Write a line that stays."""
        with suppress(
            BrokenPipeError, SystemExit
        ):  # rich's way to say that nobody reads any more: `stowage up | head`
            self._console.print(Text(plain(text)))
            self._console.file.flush()

    def rest(self) -> None:
        """End the moving line."""
        if self._moving is not None:
            self._moving.stop()
            self._moving = None


def _print_error(exc: Exception) -> None:
    first, *others = str(exc).split("\n")  # the end of a log follows on lines of its own
    error(first)
    for line in others:
        note(line)


def _stop_on_signals(stack: Stack) -> asyncio.Event:
    """Return what is set by the first signal; the second one ends the children at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            stack.hasten()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            loop.add_signal_handler(number, stop)
    return stopping


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work; False if the stop came first."""
    task, stop = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        for each in (task, stop):
            each.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)


def _print_where(stack: Stack) -> None:
    print_facts(
        [
            ("Page", f"{stack.url}/ (in a browser; it asks for the token)"),
            ("GraphiQL", f"{stack.url}/graphql (in a browser, too)"),
            ("GraphQL", f"{stack.url}/graphql"),
            ("Token", stack.dir.admin_token),
            ("Data", stack.dir.path),
            ("Registry", _registry(stack)),
        ]
    )
    sys.stdout.flush()


def _registry(stack: Stack) -> str:
    remarks = ["sample hub"] * stack.sample_hub + ["as at the last start"] * stack.registry_is_kept
    return f"{stack.endpoint} ({', '.join(remarks)})" if remarks else stack.endpoint


async def _import(stack: Stack, model: str, stopping: asyncio.Event) -> int:
    """Import with the command that a person would use, on this terminal; return what `up` is to return."""
    name, version = parse_model(model)
    folder = name.rpartition("/")[2]
    command = [sys.executable, "-P", "-m", "stowage", "import", model, "--to", folder, "--create"]
    environment = _for_commands(stack)
    process = subprocess.Popen(  # noqa: S603, ASYNC220 -- fork and exec only; waited for in a thread
        command,
        env=environment,
        preexec_fn=dies_with_parent(signal.SIGTERM),  # noqa: PLW1509 -- called from the main thread
    )
    ended = asyncio.create_task(asyncio.to_thread(process.wait))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
    # A terminal's Ctrl-C has reached the command as well; it gets a moment to say goodbye.
    for number in (signal.SIGINT, signal.SIGKILL):
        if not (await asyncio.wait({ended}, timeout=_GOODBYE))[0]:
            process.send_signal(number)
    stop.cancel()
    status = await ended
    if stopping.is_set():
        return DONE
    if status != DONE:
        hint = (
            "it was looked for in the sample hub; set HF_ENDPOINT for another one"
            if stack.sample_hub
            else f"it was looked for at {stack.endpoint}; set HF_ENDPOINT for another hub"
        )
        error(f"{model} was not imported ({hint}); the logs are in {stack.dir.logs}")
        return FAILED
    where = await asyncio.to_thread(
        _place, stack, environment, folder, f"{name}/{version or DEFAULT_REVISION}"
    )
    print_facts([("It lies in", "")])
    console().print(Text(plain(where)))  # on a line of its own, to be copied
    print_facts(
        [
            ("Page", f"{stack.url}/ (in a browser; it asks for the token)"),
            ("GraphiQL", f"{stack.url}/graphql (in a browser, too)"),
            ("GraphQL", f"{stack.url}/graphql"),
            ("Token", stack.dir.admin_token),
        ]
    )
    sys.stdout.flush()
    return DONE


def _for_commands(stack: Stack) -> dict[str, str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("STOWAGE_", "HF_"))
    }
    return environment | {"STOWAGE_DATA_DIR": str(stack.dir.path)}


def _place(stack: Stack, environment: dict[str, str], folder: str, path: str) -> Path:
    """Return where a folder's path lies on this machine's disk."""
    with StowageClient(find_stack(environment)) as client:
        vfolder = client.vfolder(folder)
        query = "query Scope($id: ID!) { vfolder(id: $id) { quotaScopeId } }"
        scope = client.execute(query, {"id": vfolder["id"]})["vfolder"]["quotaScopeId"]
    quota_scope, name = UUID(scope.rpartition(":")[2]).hex, UUID(vfolder["id"]).hex
    return stack.dir.volume / quota_scope / name[:2] / name[2:4] / name[4:] / path
