"""The figures of README.md from what `--json` wrote: `python -m benchmarks.table FILE…` prints Markdown."""

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rivals import RIVALS

GIB = 1 << 30
Json = Mapping[str, Any]


def transfers(results: Sequence[Json]) -> Iterator[str]:
    """Yield the table of ratios, and a line for each promise."""
    yield (
        "| case, source | Stowage s | "
        + " | ".join(f"x {rival}" for rival in RIVALS)
        + " | CPU-s/GiB | SHA-256 alone | peak MB |"
    )
    yield "|---|" + "---|" * (len(RIVALS) + 4)
    for each in results:
        medians = {name: found["median"] for name, found in each["contenders"].items()}
        if "stowage" not in medians:
            continue
        mine = medians["stowage"]
        ratios = [f"{mine / medians[name]:.2f}" if name in medians else "" for name in RIVALS]
        cpu = statistics.median(cost["cpu_seconds"] for cost in each["imports"])
        told = [f"{cpu * GIB / each['size']:.2f}"]
        told.append(f"{each['sha256_cpu_seconds_per_gib']:.2f}")
        told.append(f"{max(cost['peak_rss'] for cost in each['imports']) / 1e6:.0f}")
        yield f"| {each['case']}, {each['source']} | {mine:.2f} | " + " | ".join([*ratios, *told]) + " |"
    yield ""
    yield "| promise | at most | measured | |"
    yield "|---|---|---|---|"
    for each in results:
        for bar in each["bars"]:
            verdict = "kept" if bar["passed"] else "**missed**"
            name = f"{each['case']}, {each['source']}: {bar['name']}"
            yield f"| {name} | {bar['limit']:g} | {bar['measured']:.2f} | {verdict} |"


def main() -> None:
    """Print the tables of all files."""
    told = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    lines = transfers([each for document in told for each in document["transfers"]])
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
