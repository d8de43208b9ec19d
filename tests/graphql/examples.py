"""The examples of docs/graphql.md, in their order, and how what one answers becomes what later ones are asked with."""

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graphql import OperationDefinitionNode, parse

PAGE = Path(__file__).parents[2] / "docs" / "graphql.md"
TEXT = PAGE.read_text()
Json = dict[str, Any]


def operation_of(document: str) -> OperationDefinitionNode:
    (definition,) = parse(document).definitions
    assert isinstance(definition, OperationDefinitionNode)
    assert definition.name is not None
    return definition


def name_of(document: str) -> str:
    name = operation_of(document).name
    assert name is not None
    return name.value


EXAMPLES = {name_of(each): each for each in re.findall(r"```graphql\n(.*?)```", TEXT, re.DOTALL)}

# They need an object storage.
STORED = ("CreateStorage", "CreateNamespace", "ImportIntoStorage", "Presign")

_LEARNT: Mapping[str, Callable[[Json], Json]] = {
    "FirstPage": lambda data: {"cursor": data["artifactRevisions"]["pageInfo"]["endCursor"]},
    "Scan": lambda data: {
        "revision": data["scanArtifactModels"]["artifactRevision"]["edges"][0]["node"]["id"]
    },
    "CreateFolder": lambda data: {"folder": data["createVfolder"]["vfolder"]["id"]},
    "Import": lambda data: {"task": data["importArtifacts"]["tasks"][0]["taskId"]},
    "CreateStorage": lambda data: {"storage": plain(data["createObjectStorage"]["objectStorage"]["id"])},
    "ImportIntoStorage": lambda data: {"task": data["importArtifacts"]["tasks"][0]["taskId"]},
    "Invitations": lambda data: {"invitation": data["vfolderInvitations"]["edges"][0]["node"]["id"]},
}


def plain(global_id: str) -> str:
    return base64.b64decode(global_id).decode().partition(":")[2]


def variables_of(name: str, known: Json) -> Json:
    """Return what an example is asked with."""
    declared = operation_of(EXAMPLES[name]).variable_definitions
    return {each.variable.name.value: known[each.variable.name.value] for each in declared or ()}


def learn(name: str, data: Json, known: Json) -> None:
    """Keep what later examples need."""
    known |= _LEARNT.get(name, lambda _: {})(data)
