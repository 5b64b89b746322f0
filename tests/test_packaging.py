"""The image and the composition name only commands, files and settings that exist; the pins hold no machine's traces."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hub.cli import main
from hub.config.settings import WebSection

ROOT = Path(__file__).resolve().parents[1]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), lines that go on joined."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def arguments_of(name: str) -> str:
    """Of the last instruction of that name, which is the one that counts."""
    return [rest for instruction, rest in instructions() if instruction == name][-1]


@pytest.fixture(scope="module")
def composition() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(ROOT / "compose.yaml")
    return loaded


def test_the_image_runs_a_command_that_exists() -> None:
    assert json.loads(arguments_of("ENTRYPOINT")) == ["hub"]
    (command,) = json.loads(arguments_of("CMD"))
    assert command in main.commands


def test_the_image_is_made_of_files_that_exist_and_of_every_package() -> None:
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in shlex.split(rest)[:-1]
    }
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert {"hub", "connectors", "mappings", "contracts"} <= copied


def test_the_image_does_not_run_as_root() -> None:
    assert arguments_of("USER") not in ("root", "0")


def test_the_health_check_asks_the_web_application_where_it_listens() -> None:
    assert f":{WebSection().port}/healthz" in arguments_of("HEALTHCHECK")
    assert arguments_of("EXPOSE") == str(WebSection().port)
    assert '"/healthz"' in (ROOT / "hub/web/app.py").read_text()


def test_the_environment_of_the_image_is_what_the_command_line_reads() -> None:
    read = {parameter.envvar for parameter in main.params if getattr(parameter, "envvar", None)}
    given = set(re.findall(r"(HUB_\w+)=", arguments_of("ENV")))
    assert given <= read
    assert given


def test_the_composition_has_the_hub_and_its_servers(composition: dict[str, Any]) -> None:
    services = composition["services"]
    assert set(services) == {"migrate", "web", "worker", "postgres", "valkey"}
    for name in ("migrate", "web", "worker"):
        (command,) = services[name]["command"]
        assert command in main.commands
        assert {"HUB_DATABASE_URL", "HUB_REDIS_URL", "HUB_SECRET_KEY"} <= set(services[name]["environment"])


def test_services_wait_for_services_that_exist_and_can_tell_they_are_ready(
    composition: dict[str, Any],
) -> None:
    services = composition["services"]
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            assert how["condition"] != "service_healthy" or "test" in services[needed]["healthcheck"]


def test_volumes_are_declared_and_servers_are_not_open_to_the_network(composition: dict[str, Any]) -> None:
    for name, service in composition["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source.startswith("./") or source in composition["volumes"]
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ())), name


@pytest.mark.parametrize(
    ("name", "least"), [("requirements.txt", 51), ("requirements-dev.txt", 51), ("requirements-build.txt", 3)]
)
def test_every_pin_has_a_hash_and_no_registry_is_named(name: str, least: int) -> None:
    text = (ROOT / name).read_text()
    pins = re.findall(r"^[\w.\[\]-]+==[^\n]*\n((?:    --hash=[^\n]*\n)*)", text, re.MULTILINE)
    assert len(pins) >= least
    assert all(pins)
    assert "://" not in text
    assert "httpx2" not in text  # Authlib and Starlette would take it silently instead of httpx


def test_all_sets_of_pins_agree() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+)", (ROOT / name).read_text(), re.MULTILINE))

    run, develop, build = (pins(f"requirements{kind}.txt") for kind in ("", "-dev", "-build"))
    assert {package: develop.get(package) for package in run} == run
    assert {package: run.get(package) for package in build} == build
