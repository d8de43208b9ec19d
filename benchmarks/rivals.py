"""Who else can download: each rival as its users run it, timed until its files are on disk."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.content import Model
from benchmarks.sources import Source

Fetch = Callable[[Source, Model, Path], float]


class RivalFailed(Exception):
    """A rival ended with an error, or without all bytes."""


def timed(fetch: Fetch, source: Source, model: Model, directory: Path) -> float:
    """Return the seconds in which a rival brings the model into a fresh directory, `sync -f` of it included.

    The directory is removed afterwards. Raises `RivalFailed`.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        flush(directory)
        seconds = fetch(source, model, directory)
        begun = time.perf_counter()
        flush(directory)
        seconds += time.perf_counter() - begun
        brought = sum(
            path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink()
        )
        if brought < model.size:
            raise RivalFailed(f"{brought} of {model.size} bytes came")
        return seconds
    finally:
        shutil.rmtree(directory)
        flush(directory.parent)


def flush(directory: Path) -> None:
    """Wait until everything on the directory's file system is on disk: `sync -f`."""
    subprocess.run(["sync", "-f", str(directory)], check=True)


def curl(source: Source, model: Model, directory: Path) -> float:
    """One stream: file after file over one connection."""
    return _curl(source, model, directory, [])


def curl_parallel(source: Source, model: Model, directory: Path) -> float:
    """`curl -Z` with 16 transfers side by side."""
    return _curl(source, model, directory, ["--parallel", "--parallel-max", "16"])


def aria2c(source: Source, model: Model, directory: Path) -> float:
    """`aria2c -x4 -s4`, 16 files side by side where there are many."""
    lines = [f"{source.url(model, file.path)}\n  out={file.path}\n" for file in model.files]
    (directory / "list").write_text("".join(lines))
    certificate = [f"--ca-certificate={source.ca_file}"] if source.ca_file else []
    return _run(
        [
            *("aria2c", "-x4", "-s4", "-j16", "--no-conf", "--quiet", "--console-log-level=error"),
            *("--input-file", str(directory / "list"), "--dir", str(directory), *certificate),
        ]
    )


def snapshot_download(source: Source, model: Model, directory: Path) -> float:
    """The official client, huggingface_hub, into a fresh cache."""
    return _python("snapshot", source, {"endpoint": source.endpoint, "model": model.id}, directory)


def httpx_loop(source: Source, model: Model, directory: Path) -> float:
    """The simplest thing: one request after the other."""
    urls = {file.path: source.url(model, file.path) for file in model.files}
    return _python("httpx", source, {"urls": urls}, directory)


RIVALS: dict[str, Fetch] = {
    "curl": curl,
    "curl -Z": curl_parallel,
    "aria2c": aria2c,
    "snapshot_download": snapshot_download,
    "httpx loop": httpx_loop,
}


def _curl(source: Source, model: Model, directory: Path, options: Sequence[str]) -> float:
    lines = [
        f'url = "{source.url(model, file.path)}"\noutput = "{directory / file.path}"\n'
        for file in model.files
    ]
    (directory / "list").write_text("".join(lines))
    certificate = ["--cacert", str(source.ca_file)] if source.ca_file else []
    return _run(
        [
            *("curl", "-q", "--silent", "--show-error", "--fail", "--create-dirs", *certificate),
            *(*options, "--config", str(directory / "list")),
        ]
    )


def _run(command: Sequence[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RivalFailed(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
    return seconds


def _python(way: str, source: Source, asked: dict[str, object], directory: Path) -> float:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    if source.ca_file:
        environment["SSL_CERT_FILE"] = str(source.ca_file)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.downloads", way, str(directory)],
        input=json.dumps(asked),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RivalFailed(f"{way} ended with {done.returncode}: {done.stderr[-500:]}")
    return float(done.stdout.split()[-1])
