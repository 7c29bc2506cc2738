"""How the wake-up messages travel: the one place where service and worker agree on Celery.

A message says no more than "look at this job". That it may be lost, doubled or late is not mended here: the
job record is the truth, and `JobStore.reconcile` says which messages have to be sent again.

Plain values: whoever sends or receives brings Celery.
"""

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

TASK_NAME = "nextrapolate.run_job"
QUEUE = "nextrapolate"
BROKER_KEY_PREFIX = "next:q:"

BROKER_LIST = BROKER_KEY_PREFIX + QUEUE
"""Redis list in which kombu keeps the messages nobody has taken yet."""


def celery_settings(redis_url: str) -> dict[str, Any]:
    """Return the settings for `Celery(...).conf.update`, the same on both ends of the queue.

    The timeouts let a half-open connection be noticed; without them it is not noticed at all. A worker has
    several of them, and may have to wait for each in turn, so it takes up to about 20 s.
    """
    return {
        "broker_url": broker_url(redis_url),
        "broker_transport_options": {
            "global_keyprefix": BROKER_KEY_PREFIX,
            "visibility_timeout": 3600,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_default_queue": QUEUE,
        "task_acks_late": True,
        # A job whose worker dies comes back through its lease; a message that comes back would loop for ever.
        "task_reject_on_worker_lost": False,
        "task_ignore_result": True,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_prefetch_multiplier": 1,
    }


def broker_url(redis_url: str) -> str:
    """Spell the same Redis as kombu does: only unix sockets differ."""
    url = urlsplit(redis_url)
    if url.scheme != "unix":
        return redis_url
    database = parse_qs(url.query).get("db")
    query = "?" + urlencode({"virtual_host": database[0]}) if database else ""
    return f"redis+socket://{url.netloc}{url.path}{query}"
