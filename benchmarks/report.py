"""What was measured, for people and for programs."""

import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bars import Bar
from benchmarks.s3 import GIB, Uploaded
from benchmarks.transfers import STOWAGE, Result
from benchmarks.verification import PICKLES, Verified

_MIB = 1 << 20


def print_result(console: Console, result: Result, *, judged: bool = True) -> None:
    """Print one case at one source: every contender, then, unless its files are small ones to try, every promise."""
    title = f"{result.case}, {result.source}: {result.files} files, {result.size / _MIB:,.0f} MiB"
    table = Table(title=title, title_justify="left")
    for heading in ("", "median s", "least to most s", "MiB/s", "stowage takes"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, seconds in result.seconds.items():
        median = result.median(name)
        ratio = f"{result.ratio(name):.2f} x" if STOWAGE in result.seconds and name != STOWAGE else ""
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        table.add_row(name, f"{median:.2f}", spread, f"{result.size / _MIB / median:,.0f}", ratio)
    console.print(table)
    if judged:
        print_bars(console, result.bars)
    if result.costs:
        hashing = f"SHA-256 alone takes {result.hash_per_gib:.2f}"
        told = f"{result.cpu_per_gib:.2f} CPU-s per GiB ({hashing}), peak RSS {result.peak_rss / 1e6:.0f} MB"
        console.print(f"  worker: {told}", highlight=False)
    console.print()


def print_bars(console: Console, bars: Sequence[Bar]) -> None:
    """Print each promise, and whether it was kept."""
    for bar in bars:
        verdict = "[green]pass[/]" if bar.passed else "[red]miss[/]"
        console.print(f"  {verdict}  {bar.name}: {bar.measured:.2f}, at most {bar.limit:g}", highlight=False)


def print_verified(console: Console, verified: Verified, *, judged: bool = True) -> None:
    """Print what the verifiers took."""
    table = Table(title=f"verify: {verified.size / _MIB:,.0f} MiB of safetensors", title_justify="left")
    for heading in ("", "median s"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row("stowage verify, one file of two bytes", f"{verified.start:.2f}")
    table.add_row("stowage verify, the model", f"{verified.model:.2f}")
    table.add_row("import of the model, its verification included", f"{verified.imported:.2f}")
    table.add_row(f"stowage verify, {PICKLES} small pickles", f"{verified.pickles:.2f}")
    table.add_row(
        f"its memory over {verified.large / _MIB:,.0f} MiB of pickle, MiB", f"{verified.memory:.0f}"
    )
    console.print(table)
    if judged:
        print_bars(console, verified.bars)
    console.print()


def print_uploaded(console: Console, uploaded: Sequence[Uploaded]) -> None:
    """Print what uploads into an object storage took."""
    table = Table(title="s3: uploads to Swift on this machine", title_justify="left")
    for heading in ("", "files", "MiB", "median s", "CPU-s", "CPU-s per GiB", "peak RSS, MB"):
        table.add_column(heading, justify="left" if not heading else "right")
    for each in uploaded:
        numbers = [
            f"{each.seconds:.2f}",
            f"{each.cpu_seconds:.2f}",
            f"{each.cpu_seconds * GIB / each.size:.2f}",
        ]
        size = [f"{each.files:,}", f"{each.size / _MIB:,.0f}"]
        table.add_row(each.client, *size, *numbers, f"{each.peak_rss / 1e6:.0f}")
    console.print(table)
    console.print()


def document(
    results: Sequence[Result],
    uploaded: Sequence[Uploaded],
    manager: dict[str, Any] | None,
    verified: Verified | None,
) -> dict[str, Any]:
    """Return everything as JSON values."""
    return {
        "machine": _machine(),
        "transfers": [
            {
                **{
                    name: value
                    for name, value in asdict(result).items()
                    if name not in {"seconds", "costs", "hashing"}
                },
                "contenders": {
                    name: {"seconds": seconds, "median": result.median(name)}
                    for name, seconds in result.seconds.items()
                },
                "imports": [asdict(cost) for cost in result.costs],
                "sha256_cpu_seconds_per_gib": result.hash_per_gib if result.hashing else None,
                "bars": _bars(result.bars),
            }
            for result in results
        ],
        "s3": [asdict(each) for each in uploaded],
        "manager": manager,
        "verify": verified and asdict(verified) | {"bars": _bars(verified.bars)},
    }


def _bars(bars: Sequence[Bar]) -> list[dict[str, Any]]:
    return [asdict(bar) | {"passed": bar.passed} for bar in bars]


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(models),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "huggingface_hub": version("huggingface_hub"),
        "httpx": version("httpx"),
        **{name: _version([name, "--version"]) for name in ("curl", "aria2c")},
        "nginx": _version(["nginx", "-v"]),
    }


def _version(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return (told.stdout or told.stderr).splitlines()[0]


def print_manager(console: Console, measured: dict[str, Any]) -> None:
    """Print what the manager took."""
    table = Table(title="importArtifacts into a folder", title_justify="left")
    for heading in (
        "revisions",
        "its SQL, ms",
        "until committed, ms",
        "until answered, ms",
        "committed / SQL",
    ):
        table.add_column(heading, justify="right")
    for each in measured["importArtifacts"]:
        times = [f"{each[name] * 1e3:.1f}" for name in ("sql", "committed", "answered")]
        table.add_row(str(each["revisions"]), *times, f"{each['committed'] / each['sql']:.1f} x")
    console.print(table)
    table = Table(title=f"A page of {measured['artifacts']:,} artifacts", title_justify="left")
    for heading in ("page", "by cursor, ms", "by offset, ms"):
        table.add_column(heading, justify="right")
    for each in measured["pages"]:
        table.add_row(
            f"{each['number']:,}", f"{each['by_cursor'] * 1e3:.1f}", f"{each['by_offset'] * 1e3:.1f}"
        )
    console.print(table)
    table = Table(title="One manager process, 50 clients", title_justify="left")
    for heading in ("", "requests / s", "median ms", "p99 ms"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, each in measured["rates"].items():
        numbers = [f"{each[key]:,.0f}" for key in ("per_second", "median_ms", "p99_ms")]
        table.add_row(name, *numbers)
    console.print(table)
    table = Table(title="Documents that are written to cost much", title_justify="left")
    for heading in ("", "bytes", "graphql-core alone, ms", "until refused, ms"):
        table.add_column(heading, justify="left" if not heading else "right")
    for each in measured["hostile"]:
        alone = "more than 10,000" if each["alone"] is None else f"{each['alone'] * 1e3:,.1f}"
        table.add_row(each["name"], f"{each['size']:,}", alone, f"{each['refused'] * 1e3:.1f}")
    console.print(table)
