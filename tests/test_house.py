"""The rules of the house: imports point down, connectors see the SDK only, and one room speaks HTTP."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("sync", "lists", "funnels", "mail", "results")


def product_files() -> list[Path]:
    return [
        file
        for folder in ("hub", "connectors", "contracts")
        for file in sorted((ROOT / folder).rglob("*.py"))
    ]


def imports(file: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, also inside functions; not those for type checkers only."""
    tree = ast.parse(file.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_import_linter_finds_the_floors_kept() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_no_other_stage(stage: str) -> None:
    files = sorted((ROOT / "hub" / stage).rglob("*.py"))
    assert files
    others = [f"hub.{other}" for other in STAGES if other != stage]
    wrong = [
        (str(f), name) for f in files for name in imports(f) if any(within(name, other) for other in others)
    ]
    assert wrong == []


def test_the_core_names_no_vendor() -> None:
    core = [
        f
        for f in product_files()
        if f.is_relative_to(ROOT / "hub") and not f.is_relative_to(ROOT / "hub/demo")
    ]
    wrong = [(str(f), name) for f in core for name in imports(f) if within(name, "connectors")]
    assert wrong == []


def test_httpx_is_imported_in_one_module() -> None:
    users = {
        str(f.relative_to(ROOT)) for f in product_files() for name in imports(f) if within(name, "httpx")
    }
    assert users == {"hub/sdk/http.py"}


def test_httpx2_cannot_be_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import httpx2"], capture_output=True, text=True, check=False
    )
    assert "No module named 'httpx2'" in done.stderr


def test_the_command_line_starts_without_what_is_slow_to_import() -> None:
    code = "import sys, hub.cli; print(sorted({'sqlglot', 'rich', 'hubspot', 'simple_salesforce'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_migrations_are_numbered_without_gaps() -> None:
    names = sorted(path.name for path in (ROOT / "hub/store/migrations").glob("*.sql"))
    assert [re.match(r"\d{4}_", name) is not None for name in names] == [True] * len(names)
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
