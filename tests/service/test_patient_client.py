"""A client that is told to slow down does so, and its caller never hears of it."""

import time
from dataclasses import replace

import pytest

from nextrapolate import NExtClient
from nextrapolate_service.settings import RateLimit, ServiceSettings


@pytest.fixture
def settings(settings: ServiceSettings) -> ServiceSettings:
    return replace(settings, rate_limit=RateLimit(per_second=2, at_once=2))


def test_it_waits_as_long_as_it_is_told(live_url: str, api_key: str) -> None:
    started = time.monotonic()
    with NExtClient(live_url, api_key) as client:
        for number in range(4):
            client.create_series(str(number))
        assert [series.name for series in client.list_series()] == ["3", "2", "1", "0"]
    assert 1 <= time.monotonic() - started < 30
