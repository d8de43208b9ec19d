"""How both services read their TOML files: strictly, and with errors that say what to change."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from proxy_client.errors import BadRequest


class Section(BaseModel):
    """A table of a TOML file. Keys are written with hyphens; one that is not known is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )


S = TypeVar("S", bound=Section)


def read_toml(path: Path, model: type[S]) -> S:
    """Read a configuration file. Raises `BadRequest` that names the file, each wrong setting and the remedy."""
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError as exc:
        raise BadRequest(
            f"{path}: there is no such file; give its path with --config", field=str(path)
        ) from exc
    except OSError as exc:
        raise BadRequest(
            f"{path}: cannot be read ({exc.strerror}); check its permissions", field=str(path)
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise BadRequest(f"{path}: is not valid TOML: {exc}", field=str(path)) from exc
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        faults = [(".".join(map(str, fault["loc"])), fault) for fault in exc.errors()]
        lines = [f"{path}: [{where}] {_remedy(fault['type'], fault['msg'])}" for where, fault in faults]
        raise BadRequest("\n".join(lines), field=faults[0][0]) from exc


def _remedy(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "is not a setting; remove it or correct its spelling"
    if kind == "missing":
        return "is missing; add it"
    return message.removeprefix("Value error, ")
