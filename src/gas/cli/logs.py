"""Logs of commands and services: on stderr, for people in a terminal and as JSON elsewhere."""

from __future__ import annotations

import logging
import sys

__all__ = ["configure_logs"]


def configure_logs(level: int = logging.INFO) -> None:
    """Set structlog up for this process; stdout stays for results.

    Args:
        level: Least level that is shown, one of :mod:`logging`'s.
    """
    import structlog

    render = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up at each line: whoever puts another stream there, and closes it later, must not break a service.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
