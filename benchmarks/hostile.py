"""Documents that are written to cost a server much, and how soon the manager is done with each.

`python -m benchmarks.hostile NAME` parses and validates one as graphql-core does it by itself, without the manager's
limits, and prints the seconds: that is what each of them would cost before anything is executed.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import GraphQLError, GraphQLSchema, parse, validate

_PATIENCE = 10.0  # seconds
_REVISIONS = "revisions(first: 100) { edges { node { %s } } }"
_LISTS = "artifacts(first: 100) { edges { node { " + _REVISIONS + " } } }"

DOCUMENTS = {
    "one field 30,000 times": "{ me { " + "id " * 30_000 + "} }",
    "two fields 1,000 times": "{ " + "me { id email } " * 1_000 + "}",
    "30,000 aliases": "{ " + " ".join(f"a{n}: me {{ id }}" for n in range(30_000)) + " }",
    "lists in lists, a million rows": "{ " + _LISTS % f"artifact {{ {_REVISIONS % 'id'} }}" + " }",
    "fragments that double 60 times": "{ ...f0 } "
    + " ".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(60))
    + " fragment f60 on Query { me { id } }",
    "400 levels of filters": "{ artifacts(filter: " + "{NOT: [" * 400 + "{}" + "]}" * 400 + ") { count } }",
    "200,000 braces": "{ a " * 200_000,
}


@dataclass(frozen=True)
class Hostile:
    """One of them. alone: seconds of graphql-core's parser and validation, None where 10 were not enough.

    refused: the median, in seconds, until the manager's answer is there.
    """

    name: str
    size: int
    alone: float | None
    refused: float


async def measure(send: Callable[[str], Awaitable[Mapping[str, Any]]], rounds: int) -> list[Hostile]:
    """Measure all of them. send: posts a document to the manager, and returns its answer."""
    found = []
    for name, document in DOCUMENTS.items():
        took = []
        for _ in range(rounds):
            begun = time.perf_counter()
            if "errors" not in await send(document):
                raise AssertionError(f"{name} was not refused")
            took.append(time.perf_counter() - begun)
        found.append(Hostile(name, len(document), _alone(name), statistics.median(took)))
    return found


def _alone(name: str) -> float | None:
    command = [sys.executable, "-m", "benchmarks.hostile", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    return float(done.stdout)


def _validate(schema: GraphQLSchema, document: str) -> None:
    try:
        validate(schema, parse(document))
    except (GraphQLError, RecursionError):
        return


def main() -> None:
    """Print the seconds."""
    from manager.graphql.schema import schema  # noqa: PLC0415 -- the measuring process has it already

    document = DOCUMENTS[sys.argv[1]]
    begun = time.perf_counter()
    _validate(schema._schema, document)  # noqa: SLF001 -- Strawberry's own door to it
    sys.stdout.write(json.dumps(time.perf_counter() - begun))


if __name__ == "__main__":
    main()
