"""The numbers of adapter_config.json from which every module's rank and scaling follow."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from nextrapolate_store.errors import BrokenAdapter

_PLAIN_NAME = re.compile(r"[\w.]*")
_DEAR_ESCAPE = re.compile(r"\\[uUN]")
_RANKS_END = 2**31
_LEAST_ALPHA, _ALPHAS_END = 2.0**-126, 2.0**128
"""What float32 holds in full precision, as every trainer has it: beyond, products of factors overflow."""
_MOST_CHARACTERS = 1024
"""Of patterns that are compiled here, in one configuration: 13 ms at most, of all callers' time.

Those beyond are for the job to judge, and so are those with characters beyond ASCII, of which a set may take
4 ms to compile."""


def checked_rank(fields: Mapping[str, Any]) -> int:
    """Check r, lora_alpha and the patterns with others of them, and give r.

    Raises:
        BrokenAdapter: one is missing, or cannot be used; the field is named.
    """
    if not _is_rank(fields.get("r")):
        raise broken("r", "the rank r is missing or not a positive number; send the run's own configuration")
    if not _is_alpha(fields.get("lora_alpha")):
        raise broken(
            "lora_alpha",
            "lora_alpha is missing or not a positive number within float32; send the run's own configuration",
        )
    unseen = _MOST_CHARACTERS
    for field, (is_usable, wanted) in _PATTERN_FIELDS.items():
        patterns = fields.get(field) or {}
        if not isinstance(patterns, dict):
            raise broken(field, f"{field} is not a JSON object; send the run's own configuration")
        for pattern, value in patterns.items():
            if not is_usable(value):
                raise broken(
                    field,
                    f"{field} has {shown(value)} for {shown(pattern)}, not {wanted}; send the run's own "
                    "configuration",
                )
            if _is_worth_compiling(pattern) and (unseen := unseen - len(pattern)) >= 0:
                _check_pattern(field, pattern)
    return int(fields["r"])


def _is_rank(value: Any) -> bool:
    with suppress(TypeError, ValueError, OverflowError):
        return 1 <= int(value) < _RANKS_END
    return False


def _is_alpha(value: Any) -> bool:
    with suppress(TypeError, ValueError, OverflowError):
        return _LEAST_ALPHA <= float(value) < _ALPHAS_END
    return False


_PATTERN_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "rank_pattern": (_is_rank, "a rank of 1 or more"),
    "alpha_pattern": (_is_alpha, "a positive number within float32"),
}


def _is_worth_compiling(pattern: str) -> bool:
    """Tell whether it may be no regular expression, and cannot take long to compile."""
    is_dear = not pattern.isascii() or _DEAR_ESCAPE.search(pattern)
    return not is_dear and not _PLAIN_NAME.fullmatch(pattern)


def _check_pattern(field: str, pattern: str) -> None:
    try:
        re.compile(rf"(.*\.)?({pattern})$")  # what PEFT makes of it
    except (re.error, OverflowError, RecursionError) as error:
        raise broken(
            field,
            f"{field} has {shown(pattern)}, which is not a regular expression ({error}); send the run's "
            "own configuration",
        ) from None


def shown(value: Any) -> str:
    """A value of the configuration, as a message may quote it."""
    try:
        return json.dumps(value)[:80]
    except RecursionError:  # a little before what could not be read
        return "a value that is nested too deep"


def broken(field: str, what: str) -> BrokenAdapter:
    """Make the error for a configuration that is not what it should be."""
    return BrokenAdapter(f"adapter_config.json: {what}", field=field)
