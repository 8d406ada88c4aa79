"""The rules of the house that a machine can check: who may import whom, sizes, and where time and
chance come from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON_ROOTS = ("services", "shell", "clients/python/src", "lab", "bench", "tools", "tests")
SOURCES = sorted(
    path
    for root in PYTHON_ROOTS
    for path in (ROOT / root).rglob("*.py")
    if "__pycache__" not in path.parts
)
SHIPPED = [
    path for path in SOURCES if path.relative_to(ROOT).parts[0] in ("services", "shell", "clients")
]

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_MEDIAN = 10
FUNCTION_LINES_P90 = 35
BANNED_NAMES = re.compile(
    r"(^|_)(manager|helper|helpers|util|utils|common|data|info)(_|$|\.py)", re.I
)
CORE_STDLIB = {
    "__future__", "base64", "collections", "collections.abc", "dataclasses", "difflib", "enum",
    "email", "email.message", "email.parser", "functools", "hashlib", "heapq", "hmac", "io",
    "ipaddress",
    "itertools", "json", "math", "operator", "pathlib", "re", "shlex", "stat", "string", "struct",
    "textwrap", "tomllib", "types", "typing", "unicodedata", "urllib.parse", "zlib", "bisect",
    "datetime", "contextlib", "uuid",
}  # fmt: skip


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if (ROOT / module.replace(".", "/")).is_dir():
                yield from (f"{module}.{alias.name}" for alias in node.names)
            else:
                yield module


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Every function of a file with its length in lines, without its docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node, clean=False) is not None
            doc = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            yield f"{name_of(path)}:{node.name}", (node.end_lineno or 0) - node.lineno + 1 - doc


def within(folder: str) -> list[Path]:
    return [path for path in SOURCES if name_of(path).startswith(folder)]


def service_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "services" and len(parts) > 2 else ""


def test_no_service_imports_another() -> None:
    shared = {"state", "mesh", "pvcd"}
    services = (
        {p.name for p in (ROOT / "services").iterdir() if p.is_dir()} - shared - {"__pycache__"}
    )
    for path in within("services/"):
        own = service_of(path)
        if own == "pvcd":
            continue  # puts all of them together
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "services" and len(parts) > 1 and own:
                foreign = parts[1] in services and parts[1] != own
                assert not foreign, f"{name_of(path)} imports {module}: services talk gRPC"


def test_cores_are_pure() -> None:
    for path in within("services/"):
        if "core" not in path.parts:
            continue
        own = f"services.{service_of(path)}.core"
        for module in imports(path):
            allowed = (
                module in CORE_STDLIB
                or module.startswith(("pvc.", "google.protobuf", "google.rpc", own))
                or module in PURE_PARTS
            )
            assert allowed, f"{name_of(path)} imports {module}: a core does no I/O"


PURE_PARTS = {
    "services.mesh.errors",
    "services.mesh.holders",
    "services.mesh.masks",
    "services.mesh.members",
    "services.mesh.rows",
    "services.mesh.desk",
    "services.mesh.validate",
    "services.state.store",
    "services.state.table",
    "services.compute.drivers.hypervisor",
    "services.compute.drivers.observed",
    "services.compute.drivers.import_xml",
    "yaml",
    "pycdlib",
}
"""What a core may use beside contracts: the shapes of errors, rows, mutations and domains, and
parsers without I/O."""


def test_drivers_know_neither_core_nor_state() -> None:
    for path in within("services/"):
        if "drivers" in path.parts:
            for module in imports(path):
                ours = module.startswith("services.")
                assert not (ours and (".core" in module or ".state" in module)), (
                    f"{name_of(path)} imports {module}: a driver decides nothing"
                )


def test_the_client_stands_alone() -> None:
    for path in within("clients/python/src"):
        for module in imports(path):
            assert not module.startswith(("services", "shell")), f"{name_of(path)} imports {module}"


def test_the_shell_goes_through_the_client() -> None:
    for path in within("shell/"):
        for module in imports(path):
            assert not module.startswith("services") or module.startswith("services.pvcd"), (
                f"{name_of(path)} imports {module}"
            )


def test_time_and_chance_come_in_as_arguments() -> None:
    calls = re.compile(
        r"\b(time\.(time|time_ns|sleep|monotonic)|random\.|uuid\.uuid[14]|secrets\.|datetime\.now)\b"
    )
    for path in within("services/"):
        if "core" in path.parts:
            found = calls.search(path.read_text())
            assert not found, f"{name_of(path)} calls {found.group() if found else ''}"


def test_nobody_sleeps_but_the_loop() -> None:
    for path in within("services/"):
        if name_of(path) != "services/mesh/loop.py":
            assert "time.sleep(" not in path.read_text(), f"{name_of(path)} sleeps"


def test_files_are_small() -> None:
    for path in SOURCES:
        lines = len(path.read_text().splitlines())
        assert lines <= FILE_LINES_MAX, f"{name_of(path)} has {lines} lines"


def test_functions_are_small() -> None:
    lengths: list[int] = []
    for path in SHIPPED:
        for name, lines in functions(path):
            assert lines <= FUNCTION_LINES_MAX, f"{name} has {lines} lines"
            lengths.append(lines)
    lengths.sort()
    assert lengths[len(lengths) // 2] <= FUNCTION_LINES_MEDIAN
    assert lengths[len(lengths) * 9 // 10] <= FUNCTION_LINES_P90


def test_every_file_says_what_it_is() -> None:
    for path in SHIPPED:
        text = path.read_text()
        assert not text.strip() or ast.get_docstring(ast.parse(text)), (
            f"{name_of(path)} opens without a word"
        )


def test_names_say_something() -> None:
    for path in SHIPPED:
        assert not BANNED_NAMES.search(path.name), f"{name_of(path)} says nothing by its name"


def test_no_shell_strings_and_no_open_ends() -> None:
    for path in SHIPPED:
        text = path.read_text()
        for word in ("shell=True", "os.system(", "TODO", "FIXME", "NotImplementedError", "XXX"):
            assert word not in text, f"{name_of(path)} has {word}"


def test_native_libraries_stay_in_their_driver() -> None:
    homes = {
        "libvirt": "services/compute/drivers",
        "kazoo": "services/state",
        "pyroute2": "services/network/drivers",
    }
    for path in within("services/"):
        for module in imports(path):
            home = homes.get(module.split(".")[0])
            assert home is None or name_of(path).startswith(home), (
                f"{name_of(path)} imports {module}"
            )


@pytest.mark.parametrize("reason", [
    line.split()[0]
    for line in (ROOT / "proto/pvc/core/v1/reason.proto").read_text().splitlines()
    if re.match(r"  REASON_(?!UNSPECIFIED)", line)
])  # fmt: skip
def test_every_reason_is_raised_and_tested(reason: str) -> None:
    raised = any(reason in path.read_text() for path in within("services/"))
    short = reason.removeprefix("REASON_")
    camel = "".join(word.capitalize() for word in short.split("_"))
    tests = [path.read_text() for path in within("tests/") if path.name != "test_tidy.py"]
    tested = any(reason in text or f'"{short}"' in text or camel in text for text in tests)
    assert raised, f"{reason} is never raised"
    assert tested, f"{reason} is in no test"
