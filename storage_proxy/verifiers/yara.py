"""YARA: the operator's own rules, compiled and matched by YARA-X (https://virustotal.github.io/yara-x/docs/)."""

from pathlib import Path
from typing import Any, BinaryIO

from proxy_client.errors import BadRequest
from proxy_client.wire import Finding
from storage_proxy.verifiers.base import FileResult, SandboxedVerifier, Severity, plain
from storage_proxy.verifiers.policy import Policy

try:
    import yara_x
except ImportError:  # pragma: no cover -- installed wherever the tests run
    yara_x = None  # type: ignore[assignment]

_FIELD = "verification.yara-rules"
_SUFFIXES = frozenset({".yar", ".yara"})
_SEVERITIES: dict[Any, Severity] = {"note": "note", "flag": "flag", "block": "block"}


class YaraVerifier(SandboxedVerifier):
    """Matches every file against rules. A rule that matches blocks, unless its metadata say `severity = "flag"` or `"note"`."""

    name = "yara"

    def __init__(self, rules: str, max_size: int = 128 << 20) -> None:
        """Compile the rules in a file, or in all `.yar` and `.yara` files of a directory.

        max_size: bytes; a larger file is not covered. Raises `BadRequest`: no rules there, a rule that does not
        compile, YARA-X not installed.
        """
        if yara_x is None:
            raise BadRequest("yara: install stowage[yara], which brings YARA-X", field="verification")
        self.arguments = {"rules": rules, "max_size": max_size}
        self._max_size = max_size
        sources = _read(Path(rules))
        self._rules = _compiled(sources)
        self.version = f"{len(sources)} file{'s' if len(sources) > 1 else ''} of rules"

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:  # noqa: ARG002 -- the rules are the policy
        if size > self._max_size:
            return FileResult(covered=False, reason=f"larger than {self._max_size} bytes")
        if not size:
            return FileResult()
        try:
            # By its descriptor, so that YARA-X maps the very file that is open here.
            results = yara_x.Scanner(self._rules).scan_file(f"/proc/self/fd/{stream.fileno()}")
        except (yara_x.ScanError, yara_x.TimeoutError) as exc:
            return FileResult(
                covered=False, reason=plain(f"YARA-X could not look at it ({type(exc).__name__})")
            )
        return FileResult(tuple(_finding(path, rule) for rule in results.matching_rules))


def _finding(path: str, rule: Any) -> Finding:
    metadata = dict(rule.metadata)
    says = metadata.get("description", rule.identifier)
    return Finding(
        file=path,
        rule=plain(rule.identifier),
        category=plain(str(metadata.get("category", "yara"))),
        severity=_SEVERITIES.get(metadata.get("severity"), "block"),
        message=plain(f"the rule {rule.identifier} matches: {says}"),
    )


def _read(place: Path) -> dict[str, str]:
    """Return the rules' text by file name, in the order of the names."""
    try:
        files = (
            sorted(file for file in place.rglob("*") if file.suffix in _SUFFIXES)
            if place.is_dir()
            else [place]
        )
        sources = {file.name: file.read_text() for file in files}
    except (OSError, UnicodeDecodeError) as exc:
        raise BadRequest(f"yara: the rules cannot be read ({type(exc).__name__})", field=_FIELD) from exc
    if not sources:
        raise BadRequest("yara: there are no .yar or .yara files in the directory", field=_FIELD)
    return sources


def _compiled(sources: dict[str, str]) -> Any:
    compiler = yara_x.Compiler()
    try:
        compiler.enable_includes(False)  # noqa: FBT003 -- the library takes it by position
        for name, source in sources.items():
            try:
                compiler.new_namespace(name)
                compiler.add_source(source, origin=name)
            except yara_x.CompileError as exc:
                raise BadRequest(
                    f"yara: {plain(str(exc).splitlines()[0])} ({plain(name)})", field=_FIELD
                ) from exc
        return compiler.build()
    finally:
        # Only this thread may let go of it, and an error's traceback would hold it until some other thread collects that.
        del compiler
