"""docs/operations.md and docs/trainers.md name the settings, with defaults, and metrics that there are."""

import inspect
import re
from pathlib import Path

from prometheus_client.core import Metric

from nextrapolate.schemas import HORIZON_STEPS, JobState, Stage
from nextrapolate_service.disk import Space
from nextrapolate_service.metrics import StoreMetrics
from nextrapolate_store.environment import PREFIX, SETTINGS
from nextrapolate_store.statistics import BOUNDS, Histogram, Statistics
from nextrapolate_trainer.trl import NExtCallback

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "operations.md").read_text()
TRAINERS = (ROOT / "docs" / "trainers.md").read_text()
SETTING = re.compile(r"NEXTRAPOLATE_[A-Z\d_]*[A-Z]\b(?!\.\.\.)")
READ = re.compile(r"""(?:\benviron\.get\(|\benviron\[|\b_?(?:read|required)\w*\()\s*["'](\w+)["']""")
"""What an expression reads; a name in a docstring, in a message or for a child process is read by nobody."""
READ_BY_A_LIBRARY = re.compile(r"\bAWS_[A-Z_]*[A-Z]\b")
CODE = "".join(
    path.read_text()
    for part in ("service", "worker", "client", "trainer_plugin")
    for path in sorted((ROOT / part).rglob("*.py"))
)


def test_every_setting_it_names_is_read() -> None:
    assert set(SETTING.findall(GUIDE)) - set(READ.findall(CODE)) == set()


def test_every_variable_that_is_read_is_explained() -> None:
    read = {name for pattern in (READ, READ_BY_A_LIBRARY) for name in pattern.findall(CODE)}
    assert {"XDG_CONFIG_HOME", "AWS_REGION", "VERL_LOGGING_LEVEL"} <= read
    assert {name for name in read if not re.search(rf"\b{name}\b", GUIDE + TRAINERS)} == set()


def test_every_setting_is_known_by_its_name() -> None:
    assert {name for name in READ.findall(CODE) if name.startswith(PREFIX)} == SETTINGS


def test_every_metric_is_explained() -> None:
    nothing = Histogram((0,) * (len(BOUNDS) + 1), 0.0)
    statistics = Statistics(
        jobs=dict.fromkeys(JobState, 0),
        attempts_failed=0,
        lease_expired=0,
        fence_refused=0,
        republished=0,
        upload_bytes=0,
        stages=dict.fromkeys(Stage, nothing),
        queue_depth=0,
        queue_oldest_seconds=0.0,
        takes_writes=True,
        memory_bytes=0,
        memory_limit_bytes=0,
    )
    told = {_shown(metric) for metric in StoreMetrics(statistics, Space(0, 0)).collect()}
    explained = set(re.findall(r"^\| `(next_\w+)(?:\{\w+\})?` \|", GUIDE, flags=re.M))
    assert explained == told


def _shown(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def test_every_argument_of_the_callback_has_a_row_with_its_default() -> None:
    rows = re.findall(r"^\| (`.+?) \| (.+?) \|", TRAINERS, flags=re.M)
    table = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    arguments = inspect.signature(NExtCallback).parameters.values()
    defaults = {each.name: each.default for each in arguments if each.kind is each.KEYWORD_ONLY}
    assert defaults.keys() - table.keys() == set()
    defaults["horizon_steps"] = HORIZON_STEPS
    numbers = {name: value for name, value in defaults.items() if type(value) in (int, float)}
    assert {name: float(table[name].partition(";")[0]) for name in numbers} == numbers
