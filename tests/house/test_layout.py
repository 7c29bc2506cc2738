"""Every package is typed, what it exports is what the wheel ships, and what it lists is what there is."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_package_ships_py_typed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert len(packages) == 6
    assert [package for package in packages if not (ROOT / package / "py.typed").is_file()] == []


def test_scripts_of_redis_keep_to_the_width_of_the_code() -> None:
    width = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["line-length"]
    scripts = sorted((ROOT / "service" / "nextrapolate_store" / "lua").glob("*.lua"))
    assert scripts
    too_long = [
        f"{script.name}:{number}"
        for script in scripts
        for number, line in enumerate(script.read_text().splitlines(), start=1)
        if len(line) > width
    ]
    assert too_long == []


def listed(package: Path) -> tuple[set[str], set[str]]:
    """What a package's docstring names: all of it, and what its list is made of; name.py or name/."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    lines = [line for line in text.splitlines() if re.match(r" *\w+(\.py\b|/ )", line)]
    named = set(re.findall(r"\w+(?:\.py\b|/)", text))
    return named, {name for line in lines for name in re.findall(r"\w+(?:\.py\b|/(?= ))", line)}


def packages_with_a_list() -> Iterator[str]:
    for root in ("client", "service", "worker", "trainer_plugin", "benchmarks", "demo"):
        for init in sorted((ROOT / root).rglob("__init__.py")):
            if len(listed(init.parent)[1]) > 1:
                yield str(init.parent.relative_to(ROOT))


@pytest.mark.parametrize("package", [*packages_with_a_list()])
def test_a_packages_list_names_every_module(package: str) -> None:
    folder = ROOT / package
    named, entries = listed(folder)
    modules = {path.name for path in folder.glob("*.py") if not path.name.startswith("__")}
    inner = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    assert (modules | inner) - named == set()
    assert {name for name in entries if not (folder / name).exists()} == set()
