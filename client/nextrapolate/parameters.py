"""What a request cannot be made of, said in this package's own error."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from nextrapolate.errors import ParameterError


@contextmanager
def making_a_request() -> Iterator[None]:
    """Turn what pydantic says of a request into one error, a line for each value that cannot be in it.

    Raises:
        ParameterError: there is such a value.
    """
    try:
        yield
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems]
        raise ParameterError("\n".join(lines)) from None
