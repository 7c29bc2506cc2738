"""What a request cannot be made of, said in this package's own error."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from nextrapolate.errors import ParameterError

_KIND = re.compile(r"[a-z-]+\[.*\]", re.DOTALL)


@contextmanager
def making_a_request() -> Iterator[None]:
    """Turn what pydantic says of a request into one error, a line for each value that cannot be in it.

    Raises:
        ParameterError: there is such a value.
    """
    try:
        yield
    except ValidationError as error:
        raise ParameterError("\n".join(lines(error))) from None


def lines(error: ValidationError, *prefix: str) -> list[str]:
    """Say which values cannot be what they should, and why, a line each; `prefix` goes before their names."""
    problems = error.errors(include_url=False)
    return [f"{'.'.join([*prefix, *_as_written(problem['loc'])])}: {plain(problem)}" for problem in problems]


def _as_written(path: Iterable[int | str]) -> Iterator[str]:
    """Leave out the kind that pydantic names of a value which may be of several, as in tagged-union[...]."""
    return (str(part) for part in path if isinstance(part, int) or not _KIND.fullmatch(part))


def field_path(path: Iterable[int | str]) -> str:
    """Name a field of a method, in dots, from pydantic's path.

    Of a value that may be of two kinds pydantic names the kind, as in window_steps.literal['auto'], which
    nobody wrote.
    """
    return ".".join(str(part) for part in path if isinstance(part, int) or part.isidentifier())


def plain(problem: Mapping[str, Any]) -> str:
    """Say what is wrong with a value, in pydantic's words where they say it."""
    given = problem["input"]
    if isinstance(given, float | str) and str(given).lower() == "nan":
        return "Input should be a number"  # pydantic says which bound it is not within
    return plain_words(problem["msg"])


def plain_words(message: str) -> str:
    """Take off what pydantic puts before the words of a check of our own."""
    return message.removeprefix("Value error, ")
