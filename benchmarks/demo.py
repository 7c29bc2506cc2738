"""The demo's result, as it lies in demo/result.json after `make demo`.

    python -m benchmarks.demo [--result FILE] [--write]

Prints it as the table of docs/benchmarks.md.
"""

import argparse
import json
from pathlib import Path

from demo.run import HERE
from demo.table import COLUMNS, rows_of

from benchmarks.written import add_write_option, markdown_table, write_section


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--result", type=Path, default=HERE / "result.json")
    add_write_option(parser)
    options = parser.parse_args()
    result = json.loads(options.result.read_text())
    rows = [row for plan in result["plans"] for row in rows_of(plan["title"], result["runs"][plan["name"]])]
    measured = f"{markdown_table(COLUMNS, rows)}\n\n{result['seconds']:.0f} s in all."
    print(measured)
    if options.write:
        write_section("demo", measured)


if __name__ == "__main__":
    main()
