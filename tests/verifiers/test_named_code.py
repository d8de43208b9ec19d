"""Configurations that name what a loader is to call or open, and templates that hide a name."""

import json
import zlib

import pytest

from tests.verifiers import samples_formats as make
from tests.verifiers.examined import examine, rules, verdict


@pytest.mark.parametrize(
    "template",
    [
        "{{ x['__CLASS__'|lower] }}",
        "{{ x['%c%cclass%c%c' % (95, 95, 95, 95)] }}",
        "{{ x['{0:c}class'.format(95)] }}",
        "{% set a = '_' %}{{ x[a ~ a ~ 'class' ~ a ~ a] }}",
        "{{ x['@@class@@'|replace('@', '_')] }}",
        "{{ x['@@class@@'.replace('@', '_')] }}",
        "{{ x['ssalc'|reverse] }}",
    ],
)
def test_a_template_that_makes_a_name_is_not_clean(template: str) -> None:
    assert verdict(examine("chat_template.jinja", template.encode())) in {"flagged", "blocked"}


def test_a_text_with_underscores_that_python_does_not_know_is_asked_about() -> None:
    flagged = examine("chat_template.jinja", b"{{ '__start__' in x }}")
    assert verdict(flagged) == "flagged"
    for name in (
        "__class__",
        "__globals__",
        "__builtins__",
        "__subclasses__",
        "__import__",
        "__init__",
        "__code__",
    ):
        assert verdict(examine("chat_template.jinja", f"{{{{ x['a{name}b'] }}}}".encode())) == "blocked"


@pytest.mark.parametrize(
    "template",
    [
        "{{ name|replace('-', '_') }}{{ name.replace(' ', '_')|lower }}",
        "{{ '%s: %d' | format(a, b) }}{{ '{}'.format(x) }}{{ ', '.join(names) }}",
        "{% set sep = ' ' %}{{ messages[0]['role'] | upper }}{{ x.split('_')[0] }}",
    ],
)
def test_a_template_that_changes_what_it_is_given_is_clean(template: str) -> None:
    assert verdict(examine("chat_template.jinja", template.encode())) == "clean"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("config.yaml", b"model:\n  _target_: os.system\n"),
        ("config.yaml", b"---\nmodel: {'_target_': 'subprocess.Popen'}\n"),
        ("config.json", b'{"model": {"_target_": "builtins.exec"}}'),
    ],
)
def test_a_configuration_that_calls_pythons_own_library_is_blocked(path: str, content: bytes) -> None:
    assert rules(path, content) == {"config-target"}


def test_a_configuration_that_builds_a_model_is_clean() -> None:
    for name in ("nemo.collections.asr.models.EncDec", "torch.nn.Linear", "functools.partial"):
        assert verdict(examine("a.yaml", f"_target_: {name}\n".encode())) == "clean"
        assert verdict(examine("a.json", json.dumps({"_target_": name}).encode())) == "clean"


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "elsewhere"}},
        {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
    ],
)
def test_a_layer_that_opens_something_outside_is_blocked(layer: dict[str, object]) -> None:
    assert rules("model.keras", make.keras_zip(layer)) == {"keras-outside"}


def test_a_layer_with_its_own_vocabulary_is_clean() -> None:
    layer = {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": ["a", "b"]}}
    assert verdict(examine("model.keras", make.keras_zip(layer))) == "clean"


@pytest.mark.parametrize(
    ("kind", "expected"), [("sentence_transformers.models.Pooling", "clean"), ("custom.Evil", "flagged")]
)
def test_a_part_from_outside_its_library_is_remote_code(kind: str, expected: str) -> None:
    modules = json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]).encode()
    assert verdict(examine("modules.json", modules)) == expected


def test_what_an_old_joblib_packed_is_not_opened_and_not_clean() -> None:
    content = b"ZF" + hex(len(make.EVIL_PICKLE)).encode().ljust(19) + zlib.compress(make.EVIL_PICKLE)
    assert verdict(examine("model.pkl", content)) == "incomplete"
