"""Text that a loader reads: JSON configurations, chat templates, YAML, graphs as text, and code of the model's own."""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from storage_proxy.verifiers.examination import Content
from storage_proxy.verifiers.graphs import examine_graph_text
from storage_proxy.verifiers.keras import LONGEST_JSON, dictionaries, examine_keras, parse_json
from storage_proxy.verifiers.templates import examine_template, looks_like_template

_LONGEST_TEMPLATE = 1 << 20
_LONGEST_GRAPH_TEXT = 64 << 20
_PIECE = 1 << 20
_PYTHON = sys.stdlib_module_names - {"collections", "functools", "math"}
_OVERLAP = 1 << 12
_TEMPLATE_SUFFIXES = frozenset({".jinja", ".jinja2", ".j2"})
_CODE_SUFFIXES = frozenset({".py", ".pyw", ".pyc"})
_GRAPH_SUFFIXES = frozenset({".pbtxt", ".prototxt"})
_PYTHON_SHEBANG = re.compile(rb"#!.*python", re.IGNORECASE)
_YAML_TAG = re.compile(rb"!!python/|tag:yaml\.org,2002:python/|!%21python")
_YAML_TARGET = re.compile(rb"_target_[\"']?[ \t]*:[ \t]*[\"']?([A-Za-z_][\w.]*)")
_YAML_SUFFIXES = frozenset({".yaml", ".yml"})


def _spelled(word: str) -> bytes:
    r"""Return a pattern for a word in JSON, whose letters may be written \\u00XX."""
    letters = [f"(?:{re.escape(letter)}|\\\\u00{ord(letter):02x})" for letter in word]
    return "".join(letters).encode()


_NEEDLES = re.compile(
    rb'"(?:%s|%s)"\s*:\s*[{"\[]|"%s"\s*:\s*"(?:%s|%s)"'
    % (
        _spelled("auto_map"),
        _spelled("chat_template"),
        _spelled("class_name"),
        _spelled("Lambda"),
        _spelled("__lambda__"),
    ),
    re.IGNORECASE,
)
"""What in JSON that is too large or broken means that it has to be read."""


def examine_text(content: Content, head: bytes) -> None:
    """Examine text by what it is, whatever its name says; the name adds the formats that cannot be told from other text."""
    _examine_code(content, head)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] in {b"{", b"["} or content.suffix == ".json":
        _examine_json(content)
    if content.suffix in _TEMPLATE_SUFFIXES or "chat_template" in content.name:
        _examine_template_file(content)
    if content.suffix in _YAML_SUFFIXES or start.startswith((b"%YAML", b"---")):
        for piece in _pieces(content):
            if _YAML_TAG.search(piece):
                content.block("yaml-python", "format", "the YAML makes Python objects")
                break
            for match in _YAML_TARGET.finditer(piece):
                _examine_target(match[1].decode(), content)
    if content.suffix in _GRAPH_SUFFIXES or re.match(
        rb"(?:saved_model_schema_version|meta_graphs|node)\s*[:{]", start
    ):
        for piece in _pieces(content):
            examine_graph_text(piece, content)


def _examine_code(content: Content, head: bytes) -> None:
    """Note Python that lies beside the model. TorchScript keeps text with Python's suffix below `code/`, which nobody imports."""
    is_torchscript = content.depth > 0 and "/code/__torch__" in content.name
    if (content.suffix in _CODE_SUFFIXES and not is_torchscript) or _PYTHON_SHEBANG.match(head[:256]):
        content.remote_code("python-file", "a Python file lies beside the model")


def _examine_template_file(content: Content) -> None:
    data = content.read_at(0, _LONGEST_TEMPLATE + 1)
    if len(data) > _LONGEST_TEMPLATE:
        content.gap("a template of more than 1 MiB")
    if content.suffix != ".json":
        examine_template(data.decode("utf-8", "replace"), content, "the template")


def _examine_json(content: Content) -> None:
    data = content.read_at(0, LONGEST_JSON + 1)
    if len(data) <= LONGEST_JSON:
        text = data.decode(json.detect_encoding(data), "replace")
        try:
            values = parse_json(text)
        except ValueError:
            values = []
        for value in values:
            examine_parsed(value, content)
        if values:
            return
    for piece in _pieces(content):
        if _NEEDLES.search(piece):
            content.gap("JSON with settings that matter, too large or too broken to be read")
            return


def examine_parsed(value: Any, content: Content) -> None:
    """Examine parsed JSON: remote code, chat templates and Keras configurations, at any depth."""
    for item in dictionaries(value):
        content.budget.check_time()
        for key in ("auto_map", "custom_pipelines"):
            named = item.get(key)
            if isinstance(named, dict | str | list) and named and _names_code(named):
                content.remote_code(
                    "auto-map", f"{key} names Python code for the loader to run: {_first(named)}"
                )
        _examine_parts(item, content)
        for key, template in item.items():
            if "template" in key:
                for text in _texts(template):
                    if key == "chat_template" or looks_like_template(text):
                        examine_template(text, content, key)
    examine_keras(value, content)


def _examine_parts(item: dict[str, Any], content: Content) -> None:
    """Note parts that Hydra or Sentence Transformers would import by their names."""
    if isinstance(target := item.get("_target_"), str):
        _examine_target(target, content)
    if content.name.endswith("modules.json") and {"idx", "path"} <= item.keys():
        kind = item.get("type")
        if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
            content.remote_code("foreign-module", f"the model is built of {kind}, outside its library")


def _examine_target(target: str, content: Content) -> None:
    """Note what Hydra would call by its name; a model is built of no part of Python's own library."""
    if target.partition(".")[0] in _PYTHON:
        content.block("config-target", "code", f"the configuration calls {target}")


def _names_code(named: Any) -> bool:
    return any("." in text or "--" in text for text in _texts(named))


def _first(named: Any) -> str:
    return next(_texts(named), "")


def _texts(value: Any) -> Iterator[str]:
    """Yield every string within parsed JSON."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _pieces(content: Content) -> Iterator[bytes]:
    """Yield the content in pieces that overlap, so that no short pattern falls between two."""
    at = 0
    while piece := content.read_at(at, _PIECE + _OVERLAP):
        content.budget.check_time()
        yield piece
        if len(piece) <= _PIECE:
            return
        at += _PIECE
