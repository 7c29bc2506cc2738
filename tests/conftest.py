"""Fixtures that packages share; each module under fixtures/ belongs to one of them."""

from hypothesis import settings

settings.register_profile("fuzz", max_examples=5000, deadline=None)  # for `make fuzz`

pytest_plugins = [
    "fixtures.adapters",
    "fixtures.hub",
    "fixtures.s3",
    "fixtures.webhooks",
    "fixtures.redis",
    "fixtures.server",
    "fixtures.scripted_server",
    "fixtures.scripted_job",
    "fixtures.browser",
]
