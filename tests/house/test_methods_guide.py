"""docs/methods.md has a row for every method, with its source."""

import re
from pathlib import Path

import pytest

from nextrapolate.methods import METHODS

GUIDE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_row_with_its_source(name: str) -> None:
    (row, *_) = re.findall(rf"^\| `{name}`.*$", GUIDE, flags=re.M)
    told, source = row.split("|")[-2].strip(), METHODS[name].source
    assert (f"]({source.url})" in told) if source.url else (told == source.label)
