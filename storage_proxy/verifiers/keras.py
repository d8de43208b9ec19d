"""Keras configurations: JSON in `.keras` archives, HDF5 attributes and protocol buffers that names the Python to build a model of."""

import json
import re
from collections.abc import Iterator
from typing import Any

from storage_proxy.verifiers.examination import Content

LONGEST_JSON = 4 << 20
"""Bytes of JSON that are read at once."""

_FRAMEWORKS = frozenset(
    {"keras", "keras_core", "tf_keras", "keras_hub", "keras_nlp", "keras_cv", "tensorflow", "builtins"}
)
_AREAS = frozenset(
    {
        "activations", "applications", "constraints", "distribution", "dtype_policies", "engine", "initializers", "layers",
        "losses", "metrics", "mixed_precision", "models", "ops", "optimizers", "quantizers", "random", "regularizers",
        "saving", "tokenizers", "samplers", "trainers",
    }
)  # fmt: skip
"""Parts of Keras that a model is built of; others (`utils`, `legacy`, `backend`) reach files, the network or Python."""
_CODE_CLASSES = frozenset({"Lambda", "__lambda__"})
_LOADING_CLASSES = frozenset({"TFSMLayer"})
"""Layers that load what lies somewhere else."""
_LOOKUPS = frozenset({"StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization"})
_FUNCTION_CLASSES = frozenset({"function", "TFOpLambda"})
_HARMLESS_FUNCTIONS = re.compile(
    r"(?:math|nn|keras|__operators__|linalg|signal|image|random|strings|cast|reshape|concat|stack|split|expand_dims|squeeze|transpose|shape|where|ones|zeros|tile|pad|gather|one_hot|identity|clip_by_value|convert_to_tensor|slice|range|repeat|reverse|unstack|compat\.v1\.(?:shape|transpose|gather|nn\.\w+))\b(?:\.\w+)*"
)
_NEEDLE = re.compile(
    rb'"(?:c|\\u0063)(?:l|\\u006[cC])(?:a|\\u0061)(?:s|\\u0073){2}(?:_|\\u005[fF])(?:n|\\u006[eE])(?:a|\\u0061)(?:m|\\u006[dD])(?:e|\\u0065)"'
)
_LAMBDA = re.compile(rb'"class_name"\s*:\s*"(?:Lambda|__lambda__)"')
_START = re.compile(rb'\{\s*"')
_PIECE = 1 << 20


def examine_keras(value: Any, content: Content) -> None:
    """Note every class in a parsed configuration that is code of its own or comes from outside Keras."""
    for item in dictionaries(value):
        if isinstance(item.get("class_name"), str):
            _examine_class(item, content)
        if item.get("function_type") == "lambda" or item.get("output_shape_type") == "lambda":
            content.block("keras-lambda", "format", "a layer holds Python bytecode")


def dictionaries(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object within JSON, outermost first, without recursion."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _examine_class(item: dict[str, Any], content: Content) -> None:
    name, module = item["class_name"], item.get("module")
    if name in _CODE_CLASSES:
        content.block("keras-lambda", "format", f"the model has a {name} layer, which is Python bytecode")
        return
    if "config" not in item:
        return
    if isinstance(module, str) and not _is_of_keras(module):
        content.block(
            "keras-foreign-module", "format", f"the model is built of {module}.{name}, outside Keras"
        )
    config = item["config"]
    vocabulary = config.get("vocabulary") if isinstance(config, dict) else None
    if name in _LOADING_CLASSES or (name in _LOOKUPS and isinstance(vocabulary, str)):
        content.block("keras-outside", "format", f"the layer {name} loads a file from outside the model")
    if name == "TFOpLambda" and isinstance(config, dict):
        function = config.get("function")
        if not isinstance(function, str) or not _HARMLESS_FUNCTIONS.fullmatch(function):
            content.block("keras-foreign-module", "format", f"the model calls tf.{function}")
    elif name == "function" and (module == "builtins" or not isinstance(config, str)):
        content.block("keras-foreign-module", "format", f"the model calls the function {config}")


def _is_of_keras(module: str) -> bool:
    parts = [
        part
        for part in module.split(".")
        if part not in {"src", "python", "api", "_tf_keras", "_v2", "v2", "experimental"}
    ]
    if not parts or parts[0] not in _FRAMEWORKS:
        return False
    if parts[0] == "tensorflow":
        parts = parts[1:]
        if not parts or parts[0] != "keras":
            return False
    return len(parts) == 1 or parts[1] in _AREAS


def parse_json(text: str) -> list[Any]:
    """Parse JSON; the first value has, of keys that come twice, the last ones, and more values follow for the others.

    Raises `ValueError` where it is no JSON, or too deep.
    """
    shadowed: list[Any] = []

    def take(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        taken = dict(pairs)
        if len(taken) < len(pairs):
            shadowed.append(dict(reversed(pairs)))
            shadowed.extend(value for _, value in pairs)
        return taken

    try:
        return [json.loads(text, object_pairs_hook=take), *shadowed]
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


def examine_embedded(content: Content) -> None:
    """Look for configurations within a binary file: each is one run of bytes, wherever the format keeps it.

    Reads the whole file, in pieces. A configuration that cannot be read leaves a gap.
    """
    at, size = 0, content.size
    while at < size:
        content.budget.check_time()
        piece = content.read_at(at, _PIECE + 4096)
        match = _NEEDLE.search(piece) if b"class_name" in piece or b"\\u00" in piece else None
        if match is None or match.start() >= _PIECE:
            at += _PIECE
            continue
        at = _examine_around(content, at + match.start(), at + match.end())


def _parsed(text: str) -> list[Any]:
    try:
        return parse_json(text)
    except ValueError:
        return []


def _examine_around(content: Content, begin: int, end: int) -> int:
    """Parse the JSON around a needle; return where to look on."""
    window_at = max(0, begin - (LONGEST_JSON >> 2))
    window = content.read_at(window_at, LONGEST_JSON)
    inner = begin - window_at
    # JSON holds no control bytes in this place but line ends, and HDF5 puts NULs around it.
    start_of_run = max(window.rfind(b"\0", 0, inner), window.rfind(b"\x08", 0, inner)) + 1
    starts = [match.start() for match in _START.finditer(window, start_of_run, inner + 1)]
    for start in [*starts[:16], *starts[-1:-17:-1]]:
        text = window[start:].decode("latin-1")
        try:
            value, length = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            continue
        if start + length > inner:
            for parsed in _parsed(text[:length]) or [value]:
                examine_keras(parsed, content)
            return max(end, window_at + start + length)
    if _LAMBDA.search(window[max(0, inner - 64) : inner + 4096]):
        content.block("keras-lambda", "format", "the model has a Lambda layer, which is Python bytecode")
    content.gap("a Keras configuration in it cannot be read")
    return end
