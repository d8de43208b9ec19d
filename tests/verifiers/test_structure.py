"""What files are, whatever they are called."""

import json

import pytest

from storage_proxy.verifiers.policy import Policy, RemoteCode
from tests.verifiers import samples_formats as make
from tests.verifiers.examined import examine, rules, verdict

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    '{%- set messages = messages[1:] %}{%- else %}{%- set system_message = "" %}{%- endif %}'
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{%- if builtin_tools is defined %}"
    "{{- 'Tools: ' + builtin_tools | reject('equalto', 'code_interpreter') | join(', ') + '\n\n' }}{%- endif %}"
    "{%- for tool in tools %}{{- tool | tojson(indent=4) }}{%- endfor %}"
    "{%- set ns = namespace(found=false) -%}{%- for message in messages %}{%- if not (message.role == 'ipython') %}"
    "{{- raise_exception('Only one tool call!') }}{%- endif %}{%- endfor %}{{ strftime_now('%d %b %Y') }}"
    "{# a comment that names __class__ #}{%- macro render(x) %}{{ x.split('</think>')[-1].lstrip('\\n') }}{%- endmacro %}"
)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("model.safetensors", make.safetensors()),
        ("pytorch_model.bin", make.torch_zip()),
        ("weights.bin", bytes(range(256)) * 64),
        ("array.npy", make.npy(bytes(16))),
        ("arrays.npz", make.zipped({"a.npy": make.npy(bytes(16)), "b.npy": make.npy(b"abcd", "'|b1'")}, 8)),
        ("files.zip", make.zipped({"a/": b"", "a/readme.txt": b"os.system('x')", "b.bin": b"\0\1" * 99}, 8)),
        ("model.gguf", make.gguf({"tokenizer.chat_template": CHATML, "general.alignment": 32})),
        ("model.onnx", make.onnx(["model.onnx.data"])),
        ("saved_model.pb", make.saved_model(["MatMul", "RestoreV2", "SaveV2"])),
        ("model.keras", make.keras_zip(make.DENSE)),
        ("weights.h5", make.hdf5()),
        ("empty.json", b""),
        ("empty.safetensors", b""),
        ("README.md", b"# A model\n\nNever run os.system('rm -rf /') or eval(x); see __class__.\n"),
        ("page.html", b"<!doctype html><html></html>"),
        ("config.json", b'{"model_type": "bert", "class_name": "Lambda calculus", "auto_map": {}}'),
        ("tokenizer_config.json", json.dumps({"chat_template": CHATML}).encode()),
        ("tokenizer_config.json", json.dumps({"chat_template": [{"name": "x", "template": LLAMA}]}).encode()),
        ("chat_template.jinja", LLAMA.encode()),
        ("tokenizer.json", json.dumps({"model": {"vocab": {"class_name": 1, "__class__": 2}}}).encode()),
        ("merges.txt", b"#version: 0.2\n\xc4\xa0 t\nos system\n"),
        ("latin.txt", "Größe über alles\n".encode("latin-1")),
        ("config.yaml", b"---\nname: x\n"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(64)),
        ("spiece.model", make.field(1, make.field(1, "<unk>") + b"\x15\0\0\0\0" + b"\x18\x02") * 9),
    ],
)
def test_ordinary_files_are_clean(path: str, content: bytes) -> None:
    result = examine(path, content)
    assert (result.findings, result.covered, result.reason) == ([], True, None)


@pytest.mark.parametrize(
    ("path", "content", "rule"),
    [
        ("model.safetensors", make.EVIL_PICKLE, "disguise"),
        ("model.safetensors", b"just text", "disguise"),
        ("config.json", make.EVIL_PICKLE, "disguise"),
        ("config.json", make.SAFE_PICKLE, "disguise"),
        ("vocab.txt", make.SAFE_PICKLE, "disguise"),
        ("tokenizer.json", make.torch_zip(), "disguise"),
        ("model.gguf", make.torch_zip(), "disguise"),
        ("pytorch_model.bin", make.elf(), "disguise"),
        ("model.safetensors", make.pe(), "disguise"),
        ("weights", b"\xcf\xfa\xed\xfe" + bytes(60), "disguise"),
        ("weights.bin", b"\xca\xfe\xba\xbe\0\0\0\x02" + bytes(60), "disguise"),
        ("weights.bin", b"\xca\xfe\xba\xbe\0\0\0\x34" + bytes(60), "disguise"),
        ("pytorch_model.bin", b"\n <!DOCTYPE HTML><html><head>", "disguise"),
        ("config.json", b"<!-- x --><html>Sign in</html>", "disguise"),
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "lfs-pointer",
        ),
        ("README.md", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "lfs-pointer"),
        ("notes.txt", make.EICAR, "eicar"),
        ("weights.bin", bytes(999) + make.EICAR + bytes(99), "eicar"),
        ("weights.bin", bytes(999) + make.zipped({"data.pkl": make.SAFE_PICKLE}), "polyglot"),
        ("array.npy", make.npy(bytes(16)) + make.zipped({"a": b"b"}), "polyglot"),
        ("config.yaml", b"a: !!python/object/apply:os.getpid []\n", "yaml-python"),
    ],
)
def test_a_file_that_is_not_what_it_is_called_is_blocked(path: str, content: bytes, rule: str) -> None:
    assert rule in rules(path, content)


def test_a_program_that_says_so_is_remote_code() -> None:
    assert verdict(examine("operators.so", make.elf())) == "flagged"


@pytest.mark.parametrize("name", ["data.7z", "weights.bin"])
@pytest.mark.parametrize(
    "magic",
    [
        b"7z\xbc\xaf\x27\x1c\0\4",
        b"Rar!\x1a\x07\x01\0",
        b"\x28\xb5\x2f\xfd",
        b"\x04\x22\x4d\x18",
        b"MSCF\0\0\0\0",
    ],
)
def test_a_container_that_cannot_be_opened_is_not_covered(name: str, magic: bytes) -> None:
    result = examine(name, magic + bytes(99))
    assert verdict(result) == "incomplete"
    assert result.reason is not None
    assert "is not opened" in result.reason


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("config.json", b'{"auto_map": {"AutoModel": "modeling_x.XModel"}}'),
        ("config.json", b'{"\\u0061uto_map": {"AutoModel": "org/repo--modeling_x.XModel"}}'),
        ("config.json", b'{"auto_map": {"AutoTokenizer": ["t.T", null]}}'),
        ("config.json", b'{"auto_map": {"A": "b.C"}, "auto_map": {}}'),
        ("nested/any.json", b'{"x": [{"auto_map": {"AutoModel": "a.B"}}]}'),
        ("config.json", b'{"custom_pipelines": {"x": {"impl": "pipe.Pipe"}}}'),
        ("config.json", '{"auto_map": {"AutoModel": "modeling_x.XModel"}}'.encode("utf-16")),
        ("modeling_x.py", b"import torch\n"),
        ("__pycache__/x.pyc", b"\xa7\x0d\r\n" + bytes(60)),
        ("model.bin", b"\x42\x0d\r\n" + bytes(12) + b"\xe3" + bytes(60)),
        ("model.bin", b"\x33\x0d\r\n\x8f\x11\x22\x5a" + bytes(4) + b"\xe3" + bytes(60)),
        ("convert", b"#!/usr/bin/env python3\nprint()\n"),
        ("model.mar", make.zipped({"handler.py": b"import os\n"})),
    ],
)
@pytest.mark.parametrize(
    ("remote_code", "expected"),
    [(RemoteCode.ALLOW, "clean"), (RemoteCode.FLAG, "flagged"), (RemoteCode.BLOCK, "blocked")],
)
def test_code_that_a_loader_runs_is_judged_by_the_policy(
    path: str, content: bytes, remote_code: RemoteCode, expected: str
) -> None:
    assert verdict(examine(path, content, Policy(remote_code=remote_code))) == expected


def test_torchscript_is_no_python_beside_the_model() -> None:
    assert verdict(examine("m.pt", make.zipped({"m/code/__torch__.py": b"class A(Module):\n"}))) == "clean"
    assert verdict(examine("m.mar", make.zipped({"m/code/handler.py": b"import os\n"}))) == "flagged"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{% set x = ''['__class__'] %}",
        "{{ messages|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
        "{{ cycler.__init__.__globals__.os.popen('id') }}",
        "{% if x %}{{ self.__dict__ }}{% endif %}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ x|attr(y) }}",
        "{{ '%}' ~ x.__init__ }}",
        "{% raw %}{{ x }}{% endraw %}{{ a.__globals__",
    ],
)
def test_a_template_that_reaches_for_python_is_blocked(template: str) -> None:
    assert rules("chat_template.jinja", template.encode()) == {"template-injection"}
    assert rules("tokenizer_config.json", json.dumps({"chat_template": template}).encode()) == {
        "template-injection"
    }
    assert rules("m.gguf", make.gguf({"tokenizer.chat_template.tool": template})) == {"template-injection"}


@pytest.mark.parametrize(
    "template",
    [
        "{{ x['__cla' ~ 'ss__'] }}",
        "{{ x['_' * 2 ~ 'class' ~ '_' * 2] }}",
        "{{ x[('_', '_class_', '_')|join] }}",
        "{% include 'other' %}",
        "{% from 'x' import y %}",
        "{{ lipsum() }}",
        "{{ self._TemplateReference }}",
    ],
)
def test_a_template_that_could_reach_for_python_is_flagged(template: str) -> None:
    assert verdict(examine("chat_template.jinja", template.encode())) in {"flagged", "blocked"}


def test_settings_in_json_that_is_too_large_to_be_read_are_not_covered() -> None:
    filler = b'"x": "' + b"a" * (4 << 20) + b'", '
    assert verdict(examine("a.json", b"{" + filler + b'"y": 1}')) == "clean"
    assert verdict(examine("a.json", b"{" + filler + b'"chat_template": "{{ x }}"}')) == "incomplete"
    assert verdict(examine("a.json", b"{" + filler + b'"auto\\u005fmap" : {"a": "b.c"}}')) == "incomplete"


def test_json_that_nests_without_end_is_survived() -> None:
    assert examine("a.json", b'{"auto_map": {"a": "b.c"}, "x": ' + b"[" * 200_000).covered is False
