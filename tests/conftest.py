"""Fixtures that packages share; each module under fixtures/ belongs to one of them."""

import gc
import os

from hypothesis import HealthCheck, settings

# Until all test files are imported, torch and TRL with them: none of it is garbage, however often one looks.
gc.disable()

for _variable in ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "GITHUB_ACTIONS", "COLUMNS", "LINES"):
    os.environ.pop(_variable, None)  # they change what commands write, and so what tests read

# Before anything imports torch: its threads spin while they wait, on cores that other tests' processes need.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("fuzz", derandomize=False, max_examples=5000, deadline=None)  # for `make fuzz`
# The same examples in every run, however slow the machine; --hypothesis-profile wins over it.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

pytest_plugins = [
    "fixtures.adapters",
    "fixtures.hub",
    "fixtures.s3",
    "fixtures.webhooks",
    "fixtures.redis",
    "fixtures.attempts",
    "fixtures.hatched_server",
    "fixtures.scripted_server",
    "fixtures.scripted_job",
    "fixtures.command",
    "fixtures.browser",
    "fixtures.page_forms",
    "fixtures.site",
]


def pytest_collection_finish() -> None:
    """Look for garbage from here on, and not in the modules that are there to stay."""
    gc.freeze()
    gc.enable()
