from pathlib import Path

import pytest
from graphql import (
    FieldDefinitionNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    InputValueDefinitionNode,
    build_schema,
    print_ast,
)
from graphql.type import introspection_types, specified_scalar_types

from manager.graphql.schema import schema

HERE = Path(__file__).parent
CONTRACT = build_schema((HERE / "contract.graphql").read_text())
OURS: GraphQLSchema = build_schema(schema.as_str())
OPERATIONS = {
    "Query": {
        "artifact",
        "artifacts",
        "artifactRevision",
        "artifactRevisions",
        "importTask",
        "importTasks",
        "me",
        "tokens",
        "users",
        "vfolder",
        "vfolders",
        "vfolderFiles",
        "volumes",
    },
    "Mutation": {
        "cancelImportArtifact",
        "cancelImportTask",
        "createToken",
        "createUser",
        "createVfolder",
        "deleteVfolder",
        "importArtifacts",
        "retryImportTask",
        "revokeToken",
        "scanArtifactModels",
        "scanArtifacts",
        "setUserStatus",
    },
    "Subscription": {"importTaskUpdated"},
}
TYPES = sorted(set(OURS.type_map) - set(introspection_types) - set(specified_scalar_types) - set(OPERATIONS))


def shape(kind: GraphQLNamedType) -> object:
    """What of a type its clients depend on."""
    match kind:
        case GraphQLObjectType() | GraphQLInterfaceType():
            fields = {name: _field(found.ast_node) for name, found in kind.fields.items()}
            return ("type", {each.name for each in kind.interfaces}, fields)
        case GraphQLInputObjectType():
            inputs = {name: _input(found.ast_node) for name, found in kind.fields.items()}
            return ("input", inputs)
        case GraphQLEnumType():
            return ("enum", list(kind.values))
        case GraphQLUnionType():
            return ("union", {each.name for each in kind.types})
        case _:
            return ("scalar", getattr(kind, "specified_by_url", None))


def _input(node: InputValueDefinitionNode | None) -> str:
    assert node is not None
    default = f" = {print_ast(node.default_value)}" if node.default_value else ""
    return f"{node.name.value}: {print_ast(node.type)}{default}"


def _field(node: FieldDefinitionNode | None) -> tuple[str, set[str]]:
    assert node is not None
    return print_ast(node.type), {_input(argument) for argument in node.arguments or ()}


@pytest.mark.parametrize("name", TYPES)
def test_a_type_is_the_contracts(name: str) -> None:
    assert name in CONTRACT.type_map
    assert shape(OURS.type_map[name]) == shape(CONTRACT.type_map[name])


@pytest.mark.parametrize("root", OPERATIONS)
def test_the_operations_are_the_contracts(root: str) -> None:
    theirs, ours = CONTRACT.type_map[root], OURS.type_map[root]
    assert isinstance(theirs, GraphQLObjectType)
    assert isinstance(ours, GraphQLObjectType)
    assert OPERATIONS[root] <= set(ours.fields)
    for name in ours.fields:
        assert _field(ours.fields[name].ast_node) == _field(theirs.fields[name].ast_node), name


def test_everything_is_described() -> None:
    undescribed = []
    for name in [*TYPES, *OPERATIONS]:
        kind = OURS.type_map[name]
        undescribed += [name] * (not kind.description)
        for field_name, found in getattr(kind, "fields", {}).items():
            undescribed += [f"{name}.{field_name}"] * (not found.description)
            for argument_name, argument in getattr(found, "args", {}).items():
                undescribed += [f"{name}.{field_name}({argument_name})"] * (not argument.description)
    assert undescribed == []


def test_the_published_schema_is_the_one_that_is_served() -> None:
    published = (HERE.parent / "schema.graphql").read_text()
    assert published == schema.as_str() + "\n", (
        'write it again: python -c "from manager.graphql.schema import schema; print(schema)" > tests/schema.graphql'
    )
