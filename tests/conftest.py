"""Fixtures that packages share; each module under fixtures/ belongs to one of them."""

pytest_plugins = [
    "fixtures.adapters",
    "fixtures.redis",
    "fixtures.server",
    "fixtures.scripted_server",
    "fixtures.scripted_job",
    "fixtures.browser",
]
