"""Formats of models: what their headers, configurations and graphs can be made to do."""

import json
import struct

import pytest

from tests.verifiers import samples_formats as make
from tests.verifiers.examined import examine, rules, verdict


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/passwd", "a/../../b", "C:\\x", "..\\x", "~/x", "file:///etc/passwd", "a\0b", ""],
)
@pytest.mark.parametrize("nested", [False, True])
def test_onnx_data_outside_the_folder_are_blocked(location: str, *, nested: bool) -> None:
    content = make.onnx(["fine.bin", location], nested=nested)
    assert rules("model.onnx", content) == {"onnx-external-data"}
    assert rules("weights.bin", content) == {"onnx-external-data"}


def test_onnx_data_in_functions_training_and_sparse_tensors_are_looked_at() -> None:
    tensor = make.field(13, make.field(1, "location") + make.field(2, "../x"))
    node = make.field(5, make.field(5, tensor))
    graph = make.field(7, make.field(2, "g"))
    sparse = make.field(7, make.field(15, make.field(1, tensor)))
    function = make.field(25, make.field(1, "f") + make.field(7, node))
    training = make.field(20, make.field(2, make.field(5, tensor)))
    for part in (sparse, graph + function, graph + training):
        assert rules("m.onnx", make.field(1, 8) + part) == {"onnx-external-data"}


def test_onnx_that_runs_python_is_remote_code() -> None:
    assert verdict(examine("m.onnx", make.onnx(operation="PyOp"))) == "flagged"


def test_onnx_that_cannot_be_read_is_not_covered() -> None:
    assert verdict(examine("m.onnx", make.onnx()[:-1])) == "incomplete"
    assert verdict(examine("m.onnx", b"no model at all")) == "incomplete"


def test_onnx_graphs_nested_without_end_are_survived() -> None:
    graph = make.field(2, "g")
    for _ in range(500):
        graph = make.field(1, make.field(5, make.field(6, graph)))
    assert verdict(examine("m.onnx", make.field(7, graph))) == "incomplete"


@pytest.mark.parametrize("operation", ["ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "EagerPyFunc"])
def test_tensorflow_operations_that_touch_files_or_python_are_blocked(operation: str) -> None:
    for content in (
        make.saved_model(["Add", operation]),
        make.saved_model([operation], in_function=True),
        make.graph_def(["Placeholder", operation]),
    ):
        for path in ("saved_model.pb", "weights.bin"):
            assert rules(path, content) == {"tensorflow-operation"}
    text = f'node {{\n  name: "x"\n  op: "{operation}"\n}}\n'
    assert rules("graph.pbtxt", text.encode()) == {"tensorflow-operation"}


def test_tensorflow_that_reads_named_files_is_flagged_and_printing_into_one_is_blocked() -> None:
    assert verdict(examine("saved_model.pb", make.saved_model(["TFRecordDataset"]))) == "flagged"
    assert verdict(examine("saved_model.pb", make.saved_model(["PrintV2"], attribute=b"stderr"))) == "clean"
    assert rules("saved_model.pb", make.saved_model(["PrintV2"], attribute=b"file:///tmp/x")) == {
        "tensorflow-operation"
    }


def test_tensorflow_lite_with_tensorflow_operations_on_files_is_blocked() -> None:
    assert rules("m.tflite", bytes(4) + b"TFL3" + bytes(3000) + b"FlexWriteFile\0") == {
        "tensorflow-operation"
    }
    assert verdict(examine("m.tflite", bytes(4) + b"TFL3" + bytes(3000) + b"FlexErf\0")) == "clean"


FOREIGN = {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}
BUILTIN = {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"}
UTILITY = {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "http://x"}}
OWN = {"module": "evil.layers", "class_name": "Dense", "config": {}, "registered_name": "Dense"}
OLD_LAMBDA = {
    "class_name": "Lambda",
    "config": {"function": ["4wEAAAA=", None, None], "function_type": "lambda"},
}
CALL = {"class_name": "TFOpLambda", "config": {"name": "x", "function": "io.write_file"}}


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        (make.LAMBDA, "keras-lambda"),
        (OLD_LAMBDA, "keras-lambda"),
        (FOREIGN, "keras-foreign-module"),
        (BUILTIN, "keras-foreign-module"),
        (UTILITY, "keras-foreign-module"),
        (OWN, "keras-foreign-module"),
        (CALL, "keras-foreign-module"),
    ],
)
def test_keras_layers_that_are_code_are_blocked(layer: dict[str, object], rule: str) -> None:
    config = make.keras_config(layer)
    assert rules("config.json", config) == {rule}
    assert rules("model.keras", make.keras_zip(layer)) == {rule}
    assert rules("model.h5", make.hdf5(config)) == {rule}
    assert rules("model.bin", make.hdf5(config, before=2048)) == {rule}
    assert rules("keras_metadata.pb", make.field(1, make.field(2, 1) + make.field(5, config))) == {rule}
    escaped = config.replace(b'"class_name"', b'"cl\\u0061ss_name"').replace(b"Lambda", b"L\\u0061mbda")
    assert rules("model.h5", make.hdf5(escaped)) == {rule}


@pytest.mark.parametrize(
    "layer",
    [
        make.DENSE,
        {"module": "keras.src.models.functional", "class_name": "Functional", "config": {}},
        {"module": "keras_hub.layers", "class_name": "TokenEmbedding", "config": {}},
        {"module": None, "class_name": "Own", "config": {}, "registered_name": "Package>Own"},
        {"class_name": "TFOpLambda", "config": {"name": "x", "function": "math.add"}},
        {"class_name": "SlicingOpLambda", "config": {"name": "x", "function": "__operators__.getitem"}},
    ],
)
def test_ordinary_keras_layers_are_clean(layer: dict[str, object]) -> None:
    config = make.keras_config(layer)
    for path, content in [
        ("config.json", config),
        ("m.keras", make.keras_zip(layer)),
        ("m.h5", make.hdf5(config)),
    ]:
        assert verdict(examine(path, content)) == "clean"


def test_a_keras_configuration_that_cannot_be_read_is_not_covered() -> None:
    config = make.keras_config(make.DENSE)
    assert verdict(examine("m.h5", make.hdf5(config[:-9] + b"\0"))) == "incomplete"


def test_a_keras_configuration_is_found_far_into_a_file() -> None:
    for before in ((1 << 20) - 40, (1 << 20) + 7, (3 << 20) - 5):
        content = make.hdf5(bytes(before) + make.keras_config(make.LAMBDA))
        assert rules("m.h5", content) == {"keras-lambda"}


@pytest.mark.parametrize(
    "content",
    [
        make.gguf(counts=(1 << 60, 2)),
        make.gguf(counts=(1, 1 << 60)),
        make.gguf({"general.alignment": 0}),
        make.gguf({"general.alignment": 33}),
        make.gguf(tensors=[("w", (4, 1 << 62), 0, 0)]),
        make.gguf(tensors=[("w", (4,), 0, 1 << 63)]),
        make.gguf(tensors=[("w", (64,), 0, 0)]),
        make.gguf(tensors=[("w", (4,), 0, 7)]),
        make.gguf(tensors=[("w", (1, 1, 1, 1, 1), 0, 0)]),
        make.gguf(tensors=[("w", (8,), 0, 0), ("v", (8,), 0, 0)]),
        make.gguf(tensors=[("w", (2,), 0, 0), ("w", (2,), 0, 32)], data=bytes(64)),
        make.gguf(tensors=[("w", (33,), 8, 0)], data=bytes(64)),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 63) + b"key",
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + make.gguf_text("k") + struct.pack("<IIQ", 9, 4, 1 << 61),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + make.gguf_text("k") + struct.pack("<I", 99) + bytes(99),
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 2)
        + (make.gguf_text("k") + struct.pack("<II", 4, 1)) * 2
        + bytes(32),
    ],
)
def test_gguf_with_numbers_beyond_the_file_is_blocked(content: bytes) -> None:
    assert rules("m.gguf", content) == {"gguf-counts"}


def test_gguf_of_every_version_is_read() -> None:
    text = struct.pack("<I", 1) + b"k"
    one = b"GGUF" + struct.pack("<III", 1, 0, 1) + text + struct.pack("<I", 8) + struct.pack("<I", 2) + b"{{"
    big = b"GGUF" + struct.pack(">IQQ", 3, 0, 1) + struct.pack(">Q", 1) + b"k" + struct.pack(">IB", 7, 1)
    assert verdict(examine("m.gguf", one + bytes(32))) == "clean"
    assert verdict(examine("m.gguf", big + bytes(32))) == "clean"
    assert verdict(examine("m.gguf", b"GGUF" + struct.pack("<IQQ", 9, 0, 0))) == "incomplete"


def test_arrays_that_say_too_much_are_not_covered() -> None:
    assert verdict(examine("a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31))) == "incomplete"
    assert verdict(examine("a.npy", make.npy(b"", "'<f4'", "(" * 5000))) == "incomplete"
    assert verdict(examine("a.npy", make.npy(b"", "'<f4'", "(-1,)"))) == "incomplete"
    assert verdict(examine("a.npy", make.npy(b"", "'<f4'", f"({10**30},)"))) == "incomplete"


def test_json_within_json_is_only_text() -> None:
    assert (
        verdict(examine("a.json", json.dumps({"x": make.keras_config(make.LAMBDA).decode()}).encode()))
        == "clean"
    )
