"""Plug-ins: found by their entry points; one that is broken is named and harms no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from hub.cli import main
from hub.sdk import registry

PLUGINS = {
    "fine_plugin": """
        from hub.sdk.connector import Connector, ConnectorSettings, Manifest
        class connector(Connector[ConnectorSettings]):
            manifest = Manifest("fine", "Fine")
            Settings = ConnectorSettings
    """,
    "raising_plugin": "raise RuntimeError('no licence')",
    "exiting_plugin": "import sys; sys.exit('good bye')",
    "importing_plugin": "import a_library_that_is_not_there",
    "misspelt_plugin": "def broken(:",
    "empty_plugin": "",
}  # fmt: skip
NAMES = ["hubspot", "google_analytics", "webhook"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with all of them, on the path."""
    for name, source in PLUGINS.items():
        lines = source.splitlines()
        indent = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
        (tmp_path / f"{name}.py").write_text("\n".join(line[indent:] for line in lines))
    info = tmp_path / "strangers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    points = [f"{name.removesuffix('_plugin')} = {name}" for name in [*PLUGINS, "absent_plugin"]]
    (info / "entry_points.txt").write_text("[hub.connectors]\n" + "\n".join(points) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._modules.cache_clear()
    yield
    monkeypatch.undo()
    registry._modules.cache_clear()


def test_our_own_are_there() -> None:
    assert set(NAMES) <= set(registry.connectors())
    assert "smtp" in registry.relays()
    assert registry.broken() == {}
    assert registry.module("hubspot") is not None
    assert registry.module("nobody") is None


@pytest.mark.usefixtures("installed")
def test_broken_ones_are_named_with_the_reason_and_the_others_work() -> None:
    assert registry.broken() == {
        "raising": "RuntimeError: no licence",
        "exiting": "SystemExit: good bye",
        "importing": "ModuleNotFoundError: No module named 'a_library_that_is_not_there'",
        "misspelt": registry.broken()["misspelt"],
        "empty": "empty_plugin has neither `connector` nor `relay`",
        "absent": "ModuleNotFoundError: No module named 'absent_plugin'",
    }
    assert registry.broken()["misspelt"].startswith("SyntaxError: ")
    assert set(registry.connectors()) == {*NAMES, "fine"}
    assert registry.connectors()["fine"].manifest.title == "Fine"


@pytest.mark.usefixtures("installed")
def test_the_command_tells_of_them() -> None:
    done = CliRunner().invoke(main, ["connectors"])
    assert done.exit_code == 0
    assert "Fine" in done.stdout
    assert "connector raising cannot be loaded: RuntimeError: no licence" in done.stderr
    assert "Traceback" not in done.output
