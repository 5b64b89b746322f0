"""Logs tell what happened and where, and nobody's name."""

from __future__ import annotations

import pytest
import structlog

from hub import logs


def test_an_exceptions_words_and_variables_are_not_told_and_its_places_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = structlog.get_config()
    logs.configure()
    try:
        email = "ann@example.com"
        try:
            try:
                raise KeyError(email)
            except KeyError as error:
                raise ValueError(f"no {email}") from error
        except ValueError:
            structlog.get_logger().exception("a thing failed", connection="crm")
    finally:
        structlog.configure(**before)
    told = capsys.readouterr()
    assert told.out == ""
    assert "a thing failed" in told.err and "crm" in told.err
    assert "builtins.ValueError" in told.err and "builtins.KeyError" in told.err
    assert told.err.count("test_logs.py:") == 2
    assert email not in told.err
