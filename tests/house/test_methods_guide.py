"""docs/methods.md has a row for every method, with its paper."""

import re
from pathlib import Path

import pytest

from nextrapolate.schemas import MethodInfo
from nextrapolate_service.methods import OFFERED

GUIDE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()


@pytest.mark.parametrize("method", OFFERED, ids=lambda method: method.name)
def test_every_method_has_a_row_with_its_paper(method: MethodInfo) -> None:
    (row, *_) = re.findall(rf"^\| `{method.name}`.*$", GUIDE, flags=re.M)
    source = row.split("|")[-2]
    if method.paper is None:
        assert source.strip() in ("ours", "the baseline")
    else:
        assert method.paper.removeprefix("arXiv:") in source
