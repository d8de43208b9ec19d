"""Computation graphs in protocol buffers: ONNX (onnx.proto3) and TensorFlow (saved_model.proto, graph.proto)."""

import re
from collections.abc import Collection, Iterator, Mapping

from storage_proxy.verifiers.examination import Content
from storage_proxy.verifiers.protobufs import LENGTH, VARINT, Field, Message
from storage_proxy.verifiers.streams import Broken, LimitReached

_DEEPEST_GRAPH = 100
_FIELDS_TO_TELL = 4096

_Parts = Mapping[str, Mapping[int, str]]
"""By kind of message and number of field: the kind of what is in it."""

_ONNX: _Parts = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {4: "operation", 5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external data"},
}
_TENSORFLOW: _Parts = {
    "saved_model": {2: "meta graph"},
    "meta graph": {2: "graph_def"},
    "graph_def": {1: "node", 2: "library"},
    "library": {1: "function"},
    "function": {3: "node"},
}
_KEY, _VALUE = 1, 2
_NODE_OPERATION, _NODE_ATTRIBUTE = 2, 5
_LONGEST_ATTRIBUTE = 1 << 12
_PYTHON_OPERATIONS = frozenset({"PyOp", "PyFunc", "PythonOp"})

# The outermost fields of each, by which it is told from other data.
_ONNX_MODEL = {
    1: VARINT, 2: LENGTH, 3: LENGTH, 4: LENGTH, 5: VARINT, 6: LENGTH, 7: LENGTH, 8: LENGTH, 14: LENGTH, 20: LENGTH,
    25: LENGTH, 26: LENGTH,
}  # fmt: skip
_SAVED_MODEL = {1: VARINT, 2: LENGTH}
_GRAPH_DEF = {1: LENGTH, 2: LENGTH, 3: VARINT, 4: LENGTH}
_NODE_DEF = dict.fromkeys(range(1, 8), LENGTH)
_ONNX_GRAPH = dict.fromkeys(range(1, 17), LENGTH)
_META_GRAPH = dict.fromkeys(range(1, 8), LENGTH)
_SHAPES: list[tuple[str, Mapping[int, int], Collection[int], Mapping[int, int]]] = [
    ("saved_model", _SAVED_MODEL, {2}, _META_GRAPH),
    ("model", _ONNX_MODEL, {7, 25}, _ONNX_GRAPH),
    ("graph_def", _GRAPH_DEF, {1, 2}, _NODE_DEF),
]
"""Kind, its outermost fields, and the fields of what must be in it."""

_BLOCKED_OPERATIONS = frozenset(
    {
        "ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc", "ImmutableConst",
        "DatasetToTFRecord", "DatasetToTFRecordV2", "SaveDataset", "SaveDatasetV2", "SqlDataset", "Rpc", "TryRpc",
        "RpcCall", "RpcClient", "RpcServer", "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3",
        "DebugNumericSummary", "DebugNumericSummaryV2", "DebugNanCount", "CreateSummaryDbWriter",
        "CreateSummaryFileWriter", "WholeFileReader", "WholeFileReaderV2", "FileSystemSetConfiguration",
        "LoadDataset", "SnapshotDataset", "SnapshotDatasetV2", "CollectiveGatherV2Rpc", "GeneratorDataset",
    }
)  # fmt: skip
"""Operations that touch files, the network, a database or Python when the graph runs."""
_FLAGGED_OPERATIONS = frozenset(
    {
        "TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2", "FixedLengthRecordDataset",
        "FixedLengthRecordDatasetV2", "TextLineReader", "TextLineReaderV2", "TFRecordReader", "TFRecordReaderV2",
        "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "CSVDataset", "CSVDatasetV2", "LMDBDataset", "LMDBReader",
        "DecodeProtoV2", "EncodeProto",
    }
)  # fmt: skip
"""Operations that read files that the graph names."""
_PRINT = "PrintV2"
_TEXT_OPERATION = re.compile(rb"""\bop\s*:\s*["']((?:[^"'\\\n]|\\.){1,100})["']""")


def graph_of(content: Content) -> str | None:
    """Say whether this is a `model` (ONNX), `saved_model` or `graph_def`, by its outermost fields; None for anything else."""
    if not content.read_at(0, 1):
        return None
    message = Message(content)
    try:
        fields = _first_fields(message)
        for kind, shape, inner, inner_shape in _SHAPES:
            if all(shape.get(field.number) == field.type for field in fields) and _are(
                message, fields, inner, inner_shape
            ):
                return kind
    except (Broken, LimitReached):
        pass
    return None


def _first_fields(message: Message) -> list[Field]:
    fields: list[Field] = []
    for field in message.fields():
        fields.append(field)
        if len(fields) >= _FIELDS_TO_TELL:
            break
    return fields


def _are(message: Message, fields: list[Field], numbers: Collection[int], shape: Mapping[int, int]) -> bool:
    """Whether there are fields with these numbers, and the first of them hold messages of this shape."""
    found = [field for field in fields if field.number in numbers]
    for field in found[:8]:
        inner = [item for _, item in zip(range(64), message.fields(field.begin, field.end), strict=False)]
        if any(shape.get(item.number) != item.type for item in inner):
            return False
        if shape is _NODE_DEF and field.number == 1 and not {1, 2} <= {item.number for item in inner}:
            return False
    return bool(found)


def examine_onnx(content: Content) -> None:
    """Refuse tensors whose data lie outside the model's folder. Raises `Broken` where the file is no whole ONNX model."""
    message = Message(content)
    graphs = False
    for kind, field in _walk(message, _ONNX, "model", Field(0, LENGTH, 0, message.size)):
        graphs |= kind in {"graph", "function"}
        if kind == "operation" and message.text(field) in _PYTHON_OPERATIONS:
            content.remote_code("onnx-python", "a node of the graph runs Python code")
        elif kind == "external data":
            _examine_external(message, field, content)
    if message.size and not graphs:
        raise Broken("no ONNX model: there is no graph in it")


def _walk(
    message: Message, parts: _Parts, kind: str, field: Field, depth: int = 0
) -> Iterator[tuple[str, Field]]:
    """Yield every part of a message that `parts` knows, with its kind, and what is in it behind it."""
    if depth > _DEEPEST_GRAPH:
        raise LimitReached("graphs are nested too deeply")
    known = parts[kind]
    for inner in message.fields(field.begin, field.end):
        inner_kind = known.get(inner.number) if inner.type == LENGTH else None
        if inner_kind is not None:
            yield inner_kind, inner
            if inner_kind in parts:
                yield from _walk(message, parts, inner_kind, inner, depth + 1)


def _examine_external(message: Message, entry: Field, content: Content) -> None:
    """Examine one key and value of where a tensor's data lie (docs/ExternalData.md of ONNX)."""
    key, values = "", []
    for inner in message.fields(entry.begin, entry.end):
        if inner.number == _KEY:
            key = message.text(inner)
        elif inner.number == _VALUE:
            values.append(message.text(inner))
    for value in values:
        if key in {"offset", "length"} and not (value.isascii() and value.isdigit()):
            content.block("onnx-external-data", "format", f"external data have a wrong {key}")
        elif key in {"", "location"} and _leads_outside(value):
            content.block("onnx-external-data", "format", f"a tensor's data lie outside the folder: {value}")


def _leads_outside(location: str) -> bool:
    """Whether a name in the file could be anything but a file of the same folder or below."""
    parts = location.replace("\\", "/").split("/")
    return (
        not location
        or ".." in parts
        or parts[0] == ""
        or "\\" in location
        or ":" in location
        or "~" in parts[0][:1]
        or not location.isprintable()
    )


def examine_tensorflow(content: Content, kind: str) -> None:
    """Refuse operations that touch files, the network or Python when the graph runs, wherever in the graph they are."""
    message = Message(content)
    for part, node in _walk(message, _TENSORFLOW, kind, Field(0, LENGTH, 0, message.size)):
        if part == "node":
            _examine_node(message, node, content)


def _examine_node(message: Message, node: Field, content: Content) -> None:
    operations: set[str] = set()
    prints_to_file = False
    for field in message.fields(node.begin, node.end):
        if field.type != LENGTH:
            continue
        if field.number == _NODE_OPERATION:
            operations.add(message.text(field))
        elif field.number == _NODE_ATTRIBUTE and field.end - field.begin < _LONGEST_ATTRIBUTE:
            prints_to_file |= b"file:" in message.bytes(field)
    for operation in operations:
        _judge_operation(operation, content)
    if prints_to_file and _PRINT in operations:
        content.block("tensorflow-operation", "format", "the graph prints into a file")


def _judge_operation(operation: str, content: Content) -> None:
    name = operation.rpartition(">")[2]
    if name in _BLOCKED_OPERATIONS:
        content.block("tensorflow-operation", "format", f"the graph has the operation {operation}")
    elif name in _FLAGGED_OPERATIONS:
        content.flag("tensorflow-operation", "format", f"the graph has the operation {operation}")


def examine_graph_text(text: bytes, content: Content) -> None:
    """Do the same for a graph in the text format (`saved_model.pbtxt`)."""
    for match in _TEXT_OPERATION.finditer(text):
        name = match[1].decode("utf-8", "replace")
        if "\\" in name:
            content.flag("tensorflow-operation", "format", "the graph hides the name of an operation")
        _judge_operation(name, content)


FLEX = re.compile(
    rb"Flex(?:ReadFile|WriteFile|MatchingFiles|PyFunc|PyFuncStateless|EagerPyFunc|SqlDataset)\b"
)
"""Operations of TensorFlow within a TensorFlow Lite model."""
