"""The import contracts of pyproject.toml hold, and a planted violation is caught."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE_ROOTS = ("client", "service", "worker", "trainer_plugin")


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of the house under `root`, not those of the installed packages."""
    search_path = ", ".join(repr(str(root / package)) for package in PACKAGE_ROOTS)
    main = f"import sys; sys.path[:0] = [{search_path}]; from importlinter.cli import lint_imports_command; "
    return subprocess.run(
        [sys.executable, "-c", main + "lint_imports_command()", "--no-cache"],
        cwd=root,
        env=os.environ | {"COLUMNS": "300"},  # no line of the report is broken in two
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for package in PACKAGE_ROOTS:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_house_keeps_its_contracts(house: Path) -> None:
    result = lint_imports(house)
    assert result.returncode == 0, result.stdout


PLANTED = [
    ("client/nextrapolate", "nextrapolate_store"),
    ("client/nextrapolate/schemas", "nextrapolate.notebook"),
    ("service/nextrapolate_store", "nextrapolate_service"),
    ("service/nextrapolate_store", "nextrapolate"),
    ("service/nextrapolate_store", "nextrapolate.reading"),
    ("service/nextrapolate_service", "nextrapolate_worker"),
    ("service/nextrapolate_service", "nextrapolate_numerics"),
    ("worker/nextrapolate_numerics", "nextrapolate"),
    ("worker/nextrapolate_numerics/series", "nextrapolate_numerics.methods"),
    ("worker/nextrapolate_worker", "nextrapolate_service"),
    ("trainer_plugin/nextrapolate_trainer", "nextrapolate_store"),
]


def refused(report: str, module: str) -> set[str]:
    """What a module itself imports and may not: a chain that only begins with it ends elsewhere."""
    found: set[str] = set()
    for section in report.split(" is not allowed to import ")[1:]:
        imported = re.findall(rf"^-\s+{re.escape(module)} -> (\S+)", section, re.MULTILINE)
        target = section.partition(":")[0]
        found.update(name for name in imported if name == target or name.startswith(f"{target}."))
    return found


def test_each_planted_import_is_caught(house: Path) -> None:
    for number, (room, forbidden) in enumerate(PLANTED):
        (house / room / f"planted{number}.py").write_text(f'"""Planted."""\n\nimport {forbidden}\n')
    result = lint_imports(house)
    assert result.returncode != 0
    for number, (room, forbidden) in enumerate(PLANTED):
        module = f"{room.partition('/')[2].replace('/', '.')}.planted{number}"
        assert forbidden in refused(result.stdout, module)
