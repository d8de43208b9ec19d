"""The reference of all settings, made from the models that read them: example files, and tables for people.

`python -m stowage.reference DOCS` (`make docs`) writes `DOCS/examples/*.toml` and the tables of `DOCS/operations.md`, each
between a line `<!-- settings of FILE -->` and the next `<!-- end -->`.
"""

import json
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from manager.settings import PREFIX as MANAGER_PREFIX
from manager.settings import Settings as ManagerSettings
from proxy_client.configuration import Section, Unit, has_names, key_of, sections_of
from storage_proxy.settings import PREFIX as PROXY_PREFIX
from storage_proxy.settings import Settings as ProxySettings

FILES: dict[str, tuple[type[Section], str]] = {
    "manager.toml": (ManagerSettings, MANAGER_PREFIX),
    "storage-proxy.toml": (ProxySettings, PROXY_PREFIX),
}


def example(file: str) -> str:
    """Return a commented example of a file: what must be set is set, every default stands behind a `#`.

    Of a table that comes in several kinds, all but the first kind stand behind a `#` as a whole.
    """
    model, prefix = FILES[file]
    head = f"""# {file}: every setting. What must be set is set; the others show their default behind a #.
# A relative path is relative to this file. {prefix}__TABLE__KEY in the environment wins.
"""
    parts = [head]
    for table, section, optional, kind in _tables(model):
        may = " This table may be left out." if optional else ""
        off = "#" if kind else ""
        lines = [
            f"\n# {_purpose(section)}{may}",
            f"{off}[{table.replace('NAME', _name(model, table, kind))}]",
        ]
        for key, info in _settings(section):
            lines.append(f"# {info.description} ({', '.join(filter(None, [_kind(info), _standard(info)]))})")
            value = json.dumps(_shown(info), ensure_ascii=False)
            lines.append(f"{off if info.is_required() else '#'}{key} = {value}")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def tables(file: str) -> str:
    """Return one Markdown table for each table of a file, with every setting's default and unit."""
    parts = []
    for table, section, optional, _kind_number in _tables(FILES[file][0]):
        may = " This table may be left out." if optional else ""
        parts.append(f"**`[{table}]`** {_purpose(section).partition(': ')[2]}{may}\n\n")
        parts.append("| setting | default | unit | meaning |\n|---|---|---|---|\n")
        for key, info in _settings(section):
            default = _standard(info) or f"`{json.dumps(info.get_default(call_default_factory=True))}`"
            parts.append(f"| `{key}` | {default} | {_kind(info)} | {info.description} |\n")
        parts.append("\n")
    return "".join(parts)


def write(docs: Path) -> None:
    """Bring the examples and the tables below a directory up to date."""
    for file in FILES:
        (docs / "examples" / example_name(file)).write_text(example(file))
    operations = docs / "operations.md"
    operations.write_text(with_tables(operations.read_text()))


def with_tables(text: str) -> str:
    """Return the text of `operations.md` with the tables as they are now."""
    for file in FILES:
        block = rf"(<!-- settings of {re.escape(file)} -->\n).*?(<!-- end -->)"
        # As a function, since a backslash in a replacement text has a meaning.
        text = re.sub(block, partial(_between, tables(file)), text, flags=re.DOTALL)
    return text


def _between(content: str, around: re.Match[str]) -> str:
    return f"{around[1]}\n{content}{around[2]}"


def example_name(file: str) -> str:
    """Return the name of a file's example: `manager.example.toml`."""
    return file.replace(".toml", ".example.toml")


def _tables(model: type[Section]) -> Iterator[tuple[str, type[Section], bool, int]]:
    """Yield the name of each table, its class, whether a file may do without, and its number among the table's kinds."""
    for name, info in model.model_fields.items():
        key = key_of(name, info)
        for number, section in enumerate(sections_of(info.annotation)):
            table = f"{key}.NAME" if has_names(info.annotation) else key
            yield table, section, not info.is_required(), number


def _settings(section: type[Section]) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in section.model_fields.items():
        yield key_of(name, info), info


def _name(model: type[Section], table: str, kind: int) -> str:
    """Return the name that an example gives to a table; the examples of a setting are one for each kind."""
    key = table.partition(".")[0]
    (info,) = (info for name, info in model.model_fields.items() if key_of(name, info) == key)
    return str(info.examples[kind] if info.examples else _shown(info))


def _purpose(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0].replace("`", "")


def _shown(info: FieldInfo) -> Any:
    standard = None if info.is_required() else info.get_default(call_default_factory=True)
    return info.examples[0] if info.examples and not isinstance(standard, str | int | float) else standard


def _standard(info: FieldInfo) -> str:
    if info.is_required():
        return "must be set"
    return "" if info.get_default(call_default_factory=True) is not None else "none"


def _kind(info: FieldInfo) -> str:
    """Return what a value is: its unit, or its type, and its bounds."""
    unit = next((str(entry) for entry in info.metadata if isinstance(entry, Unit)), None) or _type(
        info.annotation
    )
    least = next((entry for entry in info.metadata if isinstance(entry, Ge | Gt)), None)
    most = next((entry for entry in info.metadata if isinstance(entry, Le)), None)
    bounds = {
        (False, False): "",
        (True, True): f", {getattr(least, 'ge', 0)} to {getattr(most, 'le', 0)}",
        (False, True): f", at most {getattr(most, 'le', 0)}",
        (True, False): f", at least {least.ge}"
        if isinstance(least, Ge)
        else f", above {getattr(least, 'gt', 0)}",
    }
    return unit + bounds[least is not None, most is not None]


def _type(annotation: Any) -> str:
    if annotation == list[Path]:
        return "list of paths"
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Literal:
        return " or ".join(json.dumps(part) for part in parts)
    if parts:
        return _type(parts[0])
    return {Path: "path", int: "number", float: "number", bool: "true or false"}.get(annotation, "text")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
