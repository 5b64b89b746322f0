"""A stranger's package, installed for real: found by its entry point, checked, described, and proven by the suite."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ACME = Path(__file__).with_name("acme-crm")
HUB_YAML = """\
connections:
  crm:
    connector: acme_crm
    token: "${ACME_TOKEN}"
    webhook_secret: "${ACME_SECRET}"
sync:
  crm: {every: 5m, pull: [contacts, deals], push: [results]}
lists:
  linz: {where: "city = 'Linz' AND has_deal(stage => 'open')"}
web: {public_url: "https://hub.example"}
"""
SECRETS = {"ACME_TOKEN": "acme-token-0815", "ACME_SECRET": "acme-webhook-secret"}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the built and installed package, and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--no-cache-dir", "--target", target, ACME],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target


def python(*arguments: str | Path, path: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **SECRETS,
        "PYTHONPATH": f"{path}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=cwd
    )


def hub(*arguments: str, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line as in an environment where the packages under `path` are installed."""
    return python("-m", "hub", *arguments, path=str(path), cwd=cwd)


def connectors(path: Path, cwd: Path) -> tuple[dict[str, Any], str]:
    """(name -> what `hub connectors` tells, what it says on standard error)."""
    done = hub("connectors", "--json", path=path, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)}, done.stderr


def test_it_is_found_beside_ours(installed: Path, tmp_path: Path) -> None:
    found, said = connectors(installed, tmp_path)
    assert set(found) >= {"acme_crm", "hubspot", "google_analytics", "smtp"}
    assert found["acme_crm"]["title"] == "Acme CRM"
    assert found["acme_crm"]["streams"] == ["leads", "contacts", "deals"]
    assert found["acme_crm"]["pushes"] == ["results", "fields"]
    assert "cannot be loaded" not in said


def test_a_configuration_with_it_is_checked(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "hub.yaml").write_text(HUB_YAML)
    done = hub("check", path=installed, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "hub.yaml: no mistakes found"), (
        done.stdout + done.stderr
    )


def test_every_mistake_about_it_is_told_with_its_place(installed: Path, tmp_path: Path) -> None:
    wrong = HUB_YAML
    for right, mistake in (
        ("    webhook_secret:", "    mapping: mine.yaml\n    webhook_secrte:"),
        ('    token: "${ACME_TOKEN}"\n', ""),
        ("[contacts, deals]", "[contacts, segments]"),
        ("[results]", "[consent]"),
        ("city = ", "score = "),
    ):
        assert right in wrong
        wrong = wrong.replace(right, mistake)
    (tmp_path / "hub.yaml").write_text(wrong)
    (tmp_path / "mine.yaml").write_text("contact:\n  company: firm\n")
    done = hub("check", path=installed, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    for told in (
        "hub.yaml:5:5: unknown key 'webhook_secrte'; did you mean 'webhook_secret'?",
        "token is missing",
        "acme_crm cannot pull segments; it can leads, contacts, deals",
        "acme_crm cannot push consent; it can results, fields",
        "mine.yaml:2:12: the vendor has no contact field 'firm'",
    ):
        assert told in done.stdout, done.stdout
    assert not any(secret in done.stdout for secret in SECRETS.values())


def test_the_schema_for_editors_has_its_keys(installed: Path, tmp_path: Path) -> None:
    done = hub("schema", path=installed, cwd=tmp_path)
    section = json.loads(done.stdout)["$defs"]["ConnectionSection"]
    assert "acme_crm" in section["properties"]["connector"]["enum"]
    (own,) = (
        case for case in section["allOf"] if case["if"]["properties"]["connector"]["const"] == "acme_crm"
    )
    assert {"token", "token_file", "webhook_secret", "base_url"} <= set(own["then"]["properties"])


def test_it_passes_the_conformance_suite_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    tests = ACME / "tests"
    plain = ["-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tests, "-q", "-rfE"]
    done = python("-m", "pytest", *plain, tests, path=f"{installed}{os.pathsep}{tests}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_it_imports_the_sdk_and_the_vocabulary_only() -> None:
    allowed = ("hub.sdk", "hub.model", "hub.errors", "hub.clock")
    wrong = []
    for file in sorted(ACME.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            wrong += [(file.name, n) for n in names if n.split(".")[0] == "hub" and not n.startswith(allowed)]
    assert wrong == []


BROKEN = {
    "raises": "raise RuntimeError('no luck today')",
    "misses": "import a_library_that_is_not_there",
    "lacks": "something = 1",
    "leaves": "import sys; sys.exit(3)",
}


@pytest.fixture
def beside_broken(installed: Path, tmp_path: Path) -> str:
    """Acme, installed beside plug-ins that cannot be loaded, each in its own way."""
    folder = tmp_path / "site"
    points = ["[hub.connectors]"]
    for name, source in BROKEN.items():
        (folder / f"{name}_crm").mkdir(parents=True)
        (folder / f"{name}_crm" / "__init__.py").write_text(source + "\n")
        points.append(f"{name} = {name}_crm")
    points.append("absent = a_package_that_is_not_there")
    meta = folder / "broken_crms-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-crms\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("\n".join(points) + "\n")
    return f"{folder}{os.pathsep}{installed}"


def test_a_broken_plug_in_is_named_and_breaks_nothing_else(beside_broken: str, tmp_path: Path) -> None:
    done = python("-m", "hub", "connectors", "--json", path=beside_broken, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {one["name"] for one in json.loads(done.stdout)}
    assert names >= {"acme_crm", "hubspot", "google_analytics", "smtp"}
    assert not names & {*BROKEN, "absent"}
    for name, why in (
        ("raises", "RuntimeError: no luck today"), ("misses", "a_library_that_is_not_there"),
        ("lacks", "has neither `connector` nor `relay`"), ("leaves", "SystemExit"),
        ("absent", "a_package_that_is_not_there"),
    ):  # fmt: skip
        (line,) = (one for one in done.stderr.splitlines() if one.startswith(f"connector {name} "))
        assert why in line


def test_a_broken_plug_in_is_the_only_mistake_of_a_configuration(beside_broken: str, tmp_path: Path) -> None:
    other = "  other: {connector: raises}\n"
    (tmp_path / "hub.yaml").write_text(HUB_YAML.replace("sync:\n", f"{other}sync:\n"))
    done = python("-m", "hub", "check", path=beside_broken, cwd=tmp_path)
    (told,) = done.stdout.splitlines()
    assert told.startswith("hub.yaml:6:22: there is no connector 'raises'")
    assert "it is installed but broken: RuntimeError: no luck today" in told
