"""Waiting for an import: ask the manager until it ends, and show how far it is."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column

from proxy_client.errors import Internal, Unavailable
from stowage.client import StowageClient
from stowage.commands.output import console, human_duration, human_size, plain, shows_bars
from stowage.documents import ImportTask

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
PATIENCE = 60.0  # seconds without an answer
_NARROW = 80  # columns, below which a bar is about bytes alone
FASTEST, SLOWEST = 0.3, 1.0  # seconds between two questions, at first and after a minute


class ImportView(Protocol):
    """Something that shows an import while it runs; a context."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def show(self, task: ImportTask) -> None:
        """Show the import as it is now."""


def wait_for_import(
    client: StowageClient, task: ImportTask, show: Callable[[ImportTask], None]
) -> ImportTask:
    """Return the import once it ended; `show` is called with every state that was seen, the last one too.

    A manager that restarts or cannot be reached is asked again without a word for a minute; then `Unavailable`
    is raised, and the import goes on without us.
    """
    began = answered = time.monotonic()
    show(task)
    while task["status"] not in TERMINAL:
        time.sleep(min(SLOWEST, FASTEST + (time.monotonic() - began) / 60))
        try:
            task = client.import_task(task["id"])
        except (Unavailable, Internal) as exc:
            if time.monotonic() - answered > PATIENCE:
                raise Unavailable(
                    f"lost the manager while waiting: {exc.message} The import may go on there;"
                    f" `stowage task watch {task['id']}` waits for it again"
                ) from exc
            continue
        answered = time.monotonic()
        show(task)
    return task


def view_for(stream: Console | None) -> ImportView:
    """Return bars for a terminal, lines for a pipe, and nothing for None."""
    if stream is None:
        return Silence()
    return Bars(stream) if shows_bars(stream) else Lines(stream)


def progress_console(*, as_json: bool) -> Console | None:
    """Return where progress goes: stdout; beside JSON to stderr, if that is a terminal."""
    if not as_json:
        return console()
    stream = console(stderr=True)
    return stream if shows_bars(stream) else None


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        return

    def show(self, task: ImportTask) -> None:
        """Show nothing."""


class Lines(Silence):
    """A line for every change of state or step, and for about every tenth of the bytes."""

    def __init__(self, stream: Console) -> None:
        self._stream = stream
        self._stage: tuple[str, str | None] | None = None
        self._tenths = 0

    def show(self, task: ImportTask) -> None:
        stage, done = (task["status"], task["step"]), fraction(task)
        tenths = int((done or 0.0) * 10)
        if stage == self._stage and tenths <= self._tenths:
            return
        self._stage, self._tenths = stage, tenths
        amount = f" {amounts(task)}" if task["bytesTotal"] is not None else ""
        percent = f" {done:.0%}" if done is not None and task["status"] == "RUNNING" else ""
        self._stream.print(f"{plain(model_name(task))}: {stage_name(task)}{percent}{amount}")


class Bars:
    """A bar with step, share, bytes, rate, remaining time and files."""

    def __init__(self, stream: Console) -> None:
        self._stream = stream
        narrow = stream.width < _NARROW
        self._progress = Progress(
            _text("{task.description}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=5)),
            TaskProgressColumn(table_column=Column(no_wrap=True)),
            _text("{task.fields[bytes]}"),
            _text("{task.fields[rate]}"),
            *([] if narrow else [_text("{task.fields[remaining]}"), _text("{task.fields[files]}")]),
            console=stream,
            expand=True,
            refresh_per_second=5,
        )
        self._bar = self._progress.add_task(
            "pending", total=None, start=False, bytes="", rate="", remaining="", files=""
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._progress.stop()

    def show(self, task: ImportTask) -> None:
        done, total, rate = task["bytesDone"], task["bytesTotal"], task["bytesPerSecond"]
        if task["startedAt"]:
            self._progress.start_task(self._bar)
        downloads = task["status"] == "RUNNING" and task["step"] == "DOWNLOAD"
        self._progress.update(
            self._bar,
            description=stage_name(task),
            # An import without bytes is a full bar once it is done.
            total=(total or 1) if total is not None or task["status"] == "SUCCEEDED" else None,
            completed=(total or 1) if task["status"] == "SUCCEEDED" else done,
            bytes=human_size(done) if total is None else f"{human_size(done)}/{human_size(total)}",
            rate=f"{human_size(rate)}/s" if downloads and rate else "",
            remaining=f"{human_duration((total - done) / rate)} left" if downloads and total and rate else "",
            files="" if task["filesTotal"] is None else f"{task['filesDone']}/{task['filesTotal']} files",
        )


def _text(template: str) -> TextColumn:
    return TextColumn(template, markup=False, table_column=Column(no_wrap=True))


def fraction(task: ImportTask) -> float | None:
    """Return the share of the bytes that are there, from 0 to 1; None while the total is unknown."""
    total = task["bytesTotal"]
    if total is None:
        return None
    return min(1.0, task["bytesDone"] / total) if total else 1.0


def amounts(task: ImportTask) -> str:
    """Write bytes and files, done and in all."""
    files = "" if task["filesTotal"] is None else f", {task['filesDone']} of {task['filesTotal']} files"
    return f"({human_size(task['bytesDone'])} of {human_size(task['bytesTotal'])}{files})"


def stage_name(task: ImportTask) -> str:
    """Write where the import stands, in lower case: its step while it runs, else its state."""
    if task["status"] == "RUNNING" and task["step"]:
        return plain(task["step"].lower())
    if task["status"] == "NEEDS_APPROVAL":
        return "waits for an administrator's approval"
    return plain(task["status"].lower())


def model_name(task: ImportTask) -> str:
    """Write the import's model as `ORG/NAME@REVISION`."""
    revision = task["artifactRevision"]
    return f"{revision['artifact']['name']}@{revision['version']}"
