"""How service and worker log: a line each, which says for which request, job and claim it was written."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from nextrapolate_store.environment import read_text

_about: ContextVar[Mapping[str, Any]] = ContextVar("nextrapolate_log_about", default=MappingProxyType({}))

_SHOWN = ("request_id", "job_id", "fence")


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Have every line that is written within, in this thread or task, carry these fields."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def only_about(**fields: Any) -> None:
    """Have every line that is written from now on in this task carry these fields and no others."""
    _about.set(fields)


def configure_logging() -> None:
    """Log to stderr: for people where that is a terminal, as JSON where it is not.

    NEXTRAPOLATE_LOG_FORMAT (text, json) and NEXTRAPOLATE_LOG_LEVEL (INFO by default) choose otherwise.

    Raises:
        ValueError: one of them is not what it should be.
    """
    default = "text" if sys.stderr.isatty() else "json"
    chosen = read_text("NEXTRAPOLATE_LOG_FORMAT", default, "|".join(_FORMATTERS), "text or json")
    levels = "|".join(logging.getLevelNamesMapping())
    level = read_text("NEXTRAPOLATE_LOG_LEVEL", "INFO", f"(?i:{levels})", "DEBUG, INFO, WARNING or ERROR")
    handler = logging.StreamHandler()
    handler.addFilter(_add_fields)
    handler.setFormatter(_FORMATTERS[chosen]())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for client in ("httpx", "httpx2"):  # they log whole addresses, and those of webhooks may hold a secret
        logging.getLogger(client).setLevel(max(root.level, logging.WARNING))
    logging.captureWarnings(True)


def _add_fields(record: logging.LogRecord) -> bool:
    for name, value in _about.get().items():
        if name not in vars(record):
            setattr(record, name, value)
    return True


class _Text(logging.Formatter):
    """For people: the fields, as far as there are any, behind the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        shown = [f"{name}={getattr(record, name)}" for name in _SHOWN if hasattr(record, name)]
        return super().formatMessage(record) + (f" [{' '.join(shown)}]" if shown else "")


def _json() -> logging.Formatter:
    names = {"levelname": "level", "name": "logger"}
    left_out = [*RESERVED_ATTRS, "color_message"]  # uvicorn's, for terminals
    return JsonFormatter(
        "{levelname}{name}{message}",
        style="{",
        timestamp="at",
        rename_fields=names,
        reserved_attrs=left_out,
    )


_FORMATTERS = {"text": _Text, "json": _json}
