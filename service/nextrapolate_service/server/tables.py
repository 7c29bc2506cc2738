"""Tables for people at a terminal."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from nextrapolate.tables import WIDE


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print one row a line, under the names of the columns."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else WIDE, markup=False, highlight=False).print(table)
