"""What a benchmark has measured, written into docs/benchmarks.md by the benchmark itself.

    <!-- begin: NAME -->
    <!-- end: NAME -->

What lies between these two lines is replaced by the command that was run, the day, the machine, and what was
measured; text around them is written by hand. A document that does not have them yet is given them at its
end. Needs nothing beside the standard library.
"""

import argparse
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"


def add_write_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark's command the flag `--write`."""
    parser.add_argument(
        "--write", action="store_true", help="put what was measured into docs/benchmarks.md as well"
    )


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; cells are shown by str()."""
    return "\n".join(map(markdown_row, (columns, ["---"] * len(columns), *rows)))


def markdown_row(cells: Iterable[object]) -> str:
    """A line of such a table, for a benchmark that prints it row by row, after the table of no rows."""
    return f"| {' | '.join(map(str, cells))} |"


def write_section(name: str, measured: str, document: Path = DOCUMENT) -> None:
    """Replace what lies between the markers of this name.

    Args:
        name: of the section, in lower case and hyphens.
        measured: Markdown: tables, and sentences where numbers need them.
        document: where the section is.
    """
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    heading = f"    {command()}\n\n{day_and_machine()}."
    section = f"{begin}\n{heading}\n\n{measured.strip()}\n{end}"
    text = document.read_text(encoding="utf-8")
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if found.search(text):
        text = found.sub(lambda _: section, text, count=1)
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    temporary = document.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(document)  # at once: another benchmark may be reading it


def command() -> str:
    """The command line of this process, as it would be typed in the project's root.

    Absolute paths are told by their last part: where the runs of this machine lie says nothing to others.
    """
    words = " ".join(_without_folder(word) for word in ("python", *sys.orig_argv[1:]))
    folders = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    path = os.pathsep.join(map(_without_folder, folders))
    return f"PYTHONPATH={path} {words}" if path else words


def _without_folder(word: str) -> str:
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def day_and_machine() -> str:
    """Of what is measured now."""
    return f"{datetime.now(UTC):%Y-%m-%d}, on {machine()}"


def machine() -> str:
    """Cores, memory, processor, GPU and torch of this machine, in words."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{os.cpu_count()} cores of {_processor()} with {gib:.0f} GiB of memory", *_accelerators()]
    try:
        parts.append(f"torch {version('torch')}")
    except PackageNotFoundError:
        parts.append("no torch")
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (
        found := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
    ):
        return f"an {found[1]}" if found[1][0] in "AEIOU" else f"a {found[1]}"
    return platform.machine()


def _accelerators() -> list[str]:
    """The GPU that the benchmark could use: one that has not imported torch used none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ["no GPU"]
    return [torch.cuda.get_device_name()]
