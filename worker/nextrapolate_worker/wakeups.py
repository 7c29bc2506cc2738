"""A wake-up, as the worker holds it while it works: acknowledged late, but never in the way of the next."""

from typing import Any

from celery.worker.request import Request
from kombu.message import Message


class WakeUp(Request):
    """Lets an acknowledgement that does not get through be a lost connection: the worker connects anew.

    A worker asks for no message while it holds one. Celery would log the errors named here and go on, while
    kombu goes on counting the message as held: over a half-open connection, where nothing else fails, the
    worker would never ask again.
    """

    def __init__(self, message: Message, **options: Any) -> None:
        super().__init__(message, **{**options, "connection_errors": ()})
