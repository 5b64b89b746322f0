"""What the processes log: lines for people and for machines, and never the values that the code works on."""

from __future__ import annotations

import sys
import traceback
from typing import TextIO

import structlog
from structlog.typing import ExcInfo


def configure() -> None:
    """Lines with time and level on stderr, coloured in a terminal. Of an exception only its kind and where it was raised is told:
    its words and the frames' variables may hold addresses, names and secrets."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=True),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=frames),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # stdout is for what was asked
    )


def frames(out: TextIO, exc_info: ExcInfo) -> None:
    """Write an exception, and what it came from, as places in the code."""
    error: BaseException | None = exc_info[1]
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        out.write(f"\n{type(error).__module__}.{type(error).__qualname__}\n")
        out.writelines(
            f"  {frame.filename}:{frame.lineno} {frame.name}\n"
            for frame in traceback.extract_tb(error.__traceback__)
        )
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
