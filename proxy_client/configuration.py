"""How both services read their settings: a TOML file, strictly, then the environment, with errors that say where and
what to change.

One rule for the environment: a service's prefix, the table and the key, joined by two underscores, in capitals, with
an underscore for each hyphen and dot. `STOWAGE_PROXY__WORKER__FILES_PER_IMPORT=16` sets `files-per-import` of `[worker]`
in storage-proxy.toml, `STOWAGE_PROXY__VOLUME__VOLUME1__PATH` the path of `[volume.volume1]`, which the file names. An
empty variable counts as none; one with the prefix that names no setting is an error.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from proxy_client import toml_lines
from proxy_client.errors import BadRequest, Unavailable

LARGEST_PORT = 65535
_ALIKE = re.compile("[-.]")


class Section(BaseModel):
    """A table of a TOML file. Keys are written with hyphens; one that is not known is an error.

    A relative path, wherever it is given, is relative to the directory of the TOML file.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )

    @field_validator("*", mode="after")
    @classmethod
    def _beside_the_file(cls, value: Any, info: ValidationInfo) -> Any:
        if info.context is None:
            return value
        if isinstance(value, list):
            return [info.context["directory"] / one if isinstance(one, Path) else one for one in value]
        return info.context["directory"] / value if isinstance(value, Path) else value


S = TypeVar("S", bound=Section)


class Unit(str):
    """What a value counts or holds, in an annotation: `Annotated[float, Unit("seconds")]`. The documentation shows it."""

    __slots__ = ()


def parse_listen(text: str) -> tuple[str, int]:
    """Split `HOST:PORT` (`[::1]:8080` for IPv6). Raises `ValueError`."""
    host, _colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not port.isascii() or int(port) > LARGEST_PORT:
        raise ValueError("write HOST:PORT, as 127.0.0.1:8080, [::1]:8080, or 0.0.0.0:8080 for every address")
    return host, int(port)


def _check_listen(text: str) -> str:
    parse_listen(text)
    return text


Listen = Annotated[str, AfterValidator(_check_listen), Unit("HOST:PORT")]


class Fault(NamedTuple):
    """One thing that is wrong: the path of its setting (`("proxy", "listen")`), and what to do about it."""

    path: tuple[str | int, ...]
    message: str


class WrongSettings(ValueError):
    """Several settings do not go together; raised by the validators of a whole file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(f"{'.'.join(map(str, path))}: {text}" for path, text in self.faults))


@dataclass(frozen=True)
class Configuration(Generic[S]):
    """A service's settings as they were read, and where each of them stands."""

    path: Path
    settings: S
    lines: Mapping[toml_lines.Path, int]
    variables: Mapping[tuple[str | int, ...], str] = field(default_factory=dict)

    def describe(self, fault: Fault) -> str:
        """Write a fault as one line: file and line (or the variable), the setting, what to do."""
        return _described(self.path, self.lines, self.variables, fault)


def read_toml(
    path: Path, model: type[S], prefix: str, environment: Mapping[str, str] = os.environ
) -> Configuration[S]:
    """Read a configuration file, and the environment's variables with the prefix over it.

    Raises `BadRequest` with a line for each wrong setting: where it stands, its name and the remedy.
    """
    try:
        text = path.read_text()
        values = tomllib.loads(text)
    except FileNotFoundError as exc:
        raise BadRequest(
            f"{path}: there is no such file; give its path with --config", field=str(path)
        ) from exc
    except OSError as exc:
        raise BadRequest(
            f"{path}: cannot be read ({exc.strerror}); check its permissions", field=str(path)
        ) from exc
    except UnicodeDecodeError as exc:
        raise BadRequest(f"{path}: is not UTF-8; save it as such", field=str(path)) from exc
    except tomllib.TOMLDecodeError as exc:
        found = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(exc))
        where, told = (f"{path}:{found[2]}:{found[3]}", found[1]) if found else (str(path), str(exc))
        raise BadRequest(f"{where}: this is no valid TOML: {told}", field=str(path)) from exc
    lines = toml_lines.find_lines(text)
    variables, faults = _overlay(values, model, prefix, environment)
    if not faults:
        try:
            context = {"directory": path.absolute().parent}
            return Configuration(path, model.model_validate(values, context=context), lines, variables)
        except ValidationError as exc:
            faults = _faults(exc, model)
    told = "\n".join(_described(path, lines, variables, fault) for fault in faults)
    raise BadRequest(told, field=".".join(map(str, faults[0].path)))


def read_value(file: Path, setting: str) -> str:
    """Return what a secret's file holds, without white space around it.

    Raises `Unavailable`, which names the setting and not the path: files are read while a service runs, too.
    """
    try:
        content = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise Unavailable(
            f"{setting}: the file cannot be read ({why}); correct the path, or the file's owner and mode",
            field=setting,
        ) from exc
    if not content:
        raise Unavailable(f"{setting}: the file is empty; write the value into it", field=setting)
    return content


def sections_of(annotation: Any) -> list[type[Section]]:
    """Return the kinds of table that a setting's type speaks of; none for a single value."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return sections_of(get_args(annotation)[0])
    return [section for part in get_args(annotation) for section in sections_of(part)]


def has_names(annotation: Any) -> bool:
    """Whether a setting is a table of tables that the operator names: `[volume.NAME]`."""
    return get_origin(annotation) is dict


def key_of(name: str, info: FieldInfo) -> str:
    """Return how a setting is written in the file."""
    return info.alias or name


# The environment.


def _overlay(
    values: dict[str, Any], model: type[Section], prefix: str, environment: Mapping[str, str]
) -> tuple[dict[tuple[str | int, ...], str], list[Fault]]:
    """Write the environment's settings into `values`; returns which variable each came from."""
    variables: dict[tuple[str | int, ...], str] = {}
    faults = []
    for variable, value in sorted(environment.items()):
        if variable.startswith(f"{prefix}__") and value:
            path = _named(model, variable.split("__")[1:], values)
            table: Any = values
            for key in path[:-1]:
                table = table.setdefault(key, {}) if isinstance(table, dict) else None
            if not path or not isinstance(table, dict):
                text = "names no setting of this service, or a NAME that the file does not have; correct it or take it away"
                faults.append(Fault((variable,), text))
                variables[variable,] = variable
                continue
            table[path[-1]] = value
            variables[path] = variable
    return variables, faults


def _named(model: type[Section], parts: list[str], values: object) -> tuple[str, ...]:
    """Return the path of the setting that a variable's parts name; empty if there is none, or more than one."""
    fields = {key_of(name, info): info for name, info in model.model_fields.items()}
    here = [key for key in fields if _shouted(key) == parts[0]]
    if len(here) != 1:
        return ()
    annotation, rest = fields[here[0]].annotation, parts[1:]
    path: tuple[str, ...] = (here[0],)
    inside = values.get(path[0]) if isinstance(values, dict) else None
    if has_names(annotation):
        names = [name for name in inside or () if rest and _shouted(name) == rest[0]]
        if len(names) != 1 or not isinstance(inside, dict):
            return ()
        path, inside, rest = (*path, names[0]), inside[names[0]], rest[1:]
    sections = sections_of(annotation)
    if not sections or not rest:
        return () if sections or rest else path
    deeper = next(filter(None, (_named(section, rest, inside) for section in sections)), ())
    return (*path, *deeper) if deeper else ()


def _shouted(key: str) -> str:
    return _ALIKE.sub("_", key).upper()


# Faults.


def _described(
    file: Path,
    lines: Mapping[toml_lines.Path, int],
    variables: Mapping[tuple[str | int, ...], str],
    fault: Fault,
) -> str:
    setting = ".".join(map(str, fault.path))
    if variable := variables.get(fault.path):
        return f"environment: {variable}: {fault.message}"
    line = toml_lines.line_of(lines, fault.path)
    where = f"{file}:{line}" if line else str(file)
    return f"{where}: {setting}: {fault.message}" if setting else f"{where}: {fault.message}"


def _faults(error: ValidationError, model: type[Section]) -> list[Fault]:
    faults = []
    for told in error.errors(include_url=False, include_input=False):
        cause = told.get("ctx", {}).get("error")
        if isinstance(cause, WrongSettings):
            faults += cause.faults
        else:
            # A tag that chose between kinds of table, as "type=s3", is no key of the file.
            where = tuple(key for key in told["loc"] if "=" not in str(key))
            remedy = _remedy(told["type"], told["msg"], where, model)
            faults.append(Fault(where[:-1] if where and where[-1] == "[key]" else where, remedy))
    return faults


def _remedy(kind: str, message: str, where: tuple[str | int, ...], model: type[Section]) -> str:
    known = _fields(model, where[:-1])
    if kind == "extra_forbidden" and str(where[-1]) in known:
        return "is a setting of another kind of this table; take it away, or correct the table's type"
    if kind == "extra_forbidden":
        like = difflib.get_close_matches(str(where[-1]), known, n=1)
        hint = f"did you mean {like[0]}?" if like else f"known here: {', '.join(sorted(known)) or 'nothing'}"
        return f"is not a setting; {hint}"
    asked = known.get(str(where[-1])) if where else None
    described = f": {asked.description}" if asked and asked.description else ""
    if kind == "missing":
        return f"is missing; add it{described}"
    if where and where[-1] == "[key]":
        return "is no name; letters, digits, dots, hyphens and underscores make one, at most 64"
    if kind == "model_type" or kind.startswith("dict"):
        return "is a table; write its settings below a line of their own, [NAME OF THE TABLE]"
    if kind == "string_pattern_mismatch" and described:
        return f"is not written as it should be; what belongs here{described}"
    told = message.removeprefix("Value error, ")
    return f"{told[0].lower()}{told[1:]}; what belongs here{described}" if described else told


def _fields(model: type[Section], where: tuple[str | int, ...]) -> dict[str, FieldInfo]:
    """Return the settings that the table at a path knows, by key."""
    sections: list[type[Section]] = [model]
    named = False
    for key in where:
        if named:  # the key is the operator's name
            named = False
            continue
        asked = [
            info
            for section in sections
            for name, info in section.model_fields.items()
            if key_of(name, info) == key
        ]
        if not asked:
            continue
        sections = [section for info in asked for section in sections_of(info.annotation)]
        named = has_names(asked[0].annotation)
    if named:
        return {}
    return {key_of(name, info): info for section in sections for name, info in section.model_fields.items()}
