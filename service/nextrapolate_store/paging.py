"""Reading an index page by page, newest first; a cursor is the last id of the page before."""

from collections.abc import Sequence

from redis.commands.core import Script

from nextrapolate_store.decoding import Fields, pairs
from nextrapolate_store.errors import InvalidCursor
from nextrapolate_store.ids import is_id


def read_page(
    script: Script, index: str, prefixes: Sequence[str], limit: int, cursor: str | None, *, part: str = ""
) -> tuple[list[list[Fields]], bool]:
    """Give the hashes behind each id of one page, and whether there are more pages.

    Args:
        script: page.lua.
        index: the tenant's ids.
        prefixes: of the hashes; the first of an id is its record.
        limit: how many ids a page has at most.
        cursor: the last id of the page before.
        part: the end of an index's name that has but some of the ids.

    Raises:
        InvalidCursor: the cursor is no id.
    """
    rows = script(keys=[index + part, *prefixes], args=[page_start(cursor), limit + 1, index])
    records = [[pairs(reply) for reply in row] for row in rows]
    return records[:limit], len(records) > limit


def page_start(cursor: str | None) -> str:
    """Where a page starts, as ZRANGE BYLEX wants it.

    Raises:
        InvalidCursor: the cursor is no id.
    """
    if cursor is not None and not is_id(cursor):
        raise InvalidCursor(f"{cursor!r} is not a cursor: use next_cursor of the previous page, or none")
    return "+" if cursor is None else f"({cursor}"
