"""Sections of docs/benchmarks.md that benchmarks write themselves."""

import platform
import sys
from pathlib import Path

import pytest
from benchmarks.written import ROOT, command, machine, markdown_table, write_section


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    path = tmp_path / "benchmarks.md"
    path.write_text(
        "# What was measured\n\nBefore.\n\n<!-- begin: one -->\nold\n<!-- end: one -->\n\nAfter.\n"
    )
    return path


def test_a_section_is_replaced_and_all_else_stays(document: Path) -> None:
    for _ in range(2):  # the second time as the first
        write_section("one", "| a \\1 |", document)
    text = document.read_text()
    assert text.startswith("# What was measured\n\nBefore.\n\n<!-- begin: one -->\n    python ")
    assert text.endswith("\n\n| a \\1 |\n<!-- end: one -->\n\nAfter.\n")
    assert text.count("begin: one") == 1
    assert "old" not in text
    assert machine() in text


def test_a_new_section_goes_to_the_end(document: Path) -> None:
    before = document.read_text()
    write_section("two", "new", document)
    after = document.read_text()
    assert after.startswith(f"{before}\n<!-- begin: two -->\n")
    assert after.endswith("\n\nnew\n<!-- end: two -->\n")


def test_the_command_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "/usr/bin/python3",
        "-m",
        "benchmarks.extraction",
        "/data/runs/lr2e-5",
        str(ROOT / "docs"),
        "--write",
    ]
    monkeypatch.setattr(sys, "orig_argv", words)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert command() == "python -m benchmarks.extraction lr2e-5 docs --write"
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests'}:worker")
    assert command() == "PYTHONPATH=tests:worker python -m benchmarks.extraction lr2e-5 docs --write"


def test_the_machine_is_told_without_its_name() -> None:
    assert "GiB of memory" in machine()
    assert platform.node() not in machine()


def test_tables_are_markdown() -> None:
    assert markdown_table(("a", "b"), [(1, "x"), (2.5, "y")]) == (
        "| a | b |\n| --- | --- |\n| 1 | x |\n| 2.5 | y |"
    )
