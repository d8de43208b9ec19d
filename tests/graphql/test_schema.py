"""The contract is part of the schema that is served, to the letter; what is added breaks nobody."""

from pathlib import Path

import pytest
from graphql import (
    FieldDefinitionNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLUnionType,
    InputValueDefinitionNode,
    NonNullTypeNode,
    build_schema,
    print_ast,
)
from graphql.type import introspection_types, specified_scalar_types

from manager.graphql.schema import schema

HERE = Path(__file__).parent
CONTRACT = build_schema((HERE / "contract.graphql").read_text())
OURS: GraphQLSchema = build_schema(schema.as_str())
BUILT_IN = set(introspection_types) | set(specified_scalar_types)
Inputs = dict[str, InputValueDefinitionNode]


def written(node: InputValueDefinitionNode) -> str:
    default = f" = {print_ast(node.default_value)}" if node.default_value else ""
    return f"{node.name.value}: {print_ast(node.type)}{default}"


def compare_inputs(theirs: Inputs, ours: Inputs, where: str) -> None:
    assert set(theirs) <= set(ours), where
    for name, node in ours.items():
        if name in theirs:
            assert written(node) == written(theirs[name]), where
        else:
            optional = node.default_value is not None or not isinstance(node.type, NonNullTypeNode)
            assert optional, f"{where}: {name} was added and must be given"


def compare_fields(
    theirs: GraphQLObjectType | GraphQLInterfaceType, ours: GraphQLObjectType | GraphQLInterfaceType
) -> None:
    assert {each.name for each in theirs.interfaces} == {each.name for each in ours.interfaces}
    assert set(theirs.fields) <= set(ours.fields)
    for name in theirs.fields:
        wanted, served = node_of(theirs, name), node_of(ours, name)
        assert print_ast(served.type) == print_ast(wanted.type), name
        compare_inputs(
            {one.name.value: one for one in wanted.arguments or ()},
            {one.name.value: one for one in served.arguments or ()},
            name,
        )


def node_of(kind: GraphQLObjectType | GraphQLInterfaceType, name: str) -> FieldDefinitionNode:
    node = kind.fields[name].ast_node
    assert isinstance(node, FieldDefinitionNode)
    return node


def inputs_of(kind: GraphQLInputObjectType) -> Inputs:
    return {name: one.ast_node for name, one in kind.fields.items() if one.ast_node is not None}


def compare(theirs: GraphQLNamedType, ours: GraphQLNamedType) -> None:
    assert type(theirs) is type(ours)
    match theirs, ours:
        case (GraphQLObjectType() | GraphQLInterfaceType(), GraphQLObjectType() | GraphQLInterfaceType()):
            compare_fields(theirs, ours)
        case GraphQLInputObjectType(), GraphQLInputObjectType():
            compare_inputs(inputs_of(theirs), inputs_of(ours), theirs.name)
        case GraphQLEnumType(), GraphQLEnumType():
            assert list(theirs.values) == list(ours.values)
        case GraphQLUnionType(), GraphQLUnionType():
            assert {each.name for each in theirs.types} == {each.name for each in ours.types}
        case GraphQLScalarType(), GraphQLScalarType():
            assert theirs.specified_by_url == ours.specified_by_url


@pytest.mark.parametrize("name", sorted(set(CONTRACT.type_map) - BUILT_IN))
def test_the_contract_is_served(name: str) -> None:
    assert name in OURS.type_map
    compare(CONTRACT.type_map[name], OURS.type_map[name])


def test_everything_is_described() -> None:
    undescribed = []
    for name in sorted(set(OURS.type_map) - BUILT_IN):
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
