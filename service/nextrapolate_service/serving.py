"""`python -m nextrapolate_service.serving`: the app behind uvicorn, which stops without losing anything.

Asked to stop, it takes no more connections, ends the streams of events and the waiting for jobs, whose
callers come back to the next process, and lets every other request finish.
"""

import argparse
import logging
import socket
import sys
import threading
from types import FrameType

import uvicorn

from nextrapolate_service.app import create_app
from nextrapolate_service.bounded_http import BoundedHttp
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.environment import warnings_of_unknown_settings
from nextrapolate_store.logs import configure_logging

_log = logging.getLogger(__name__)

DRAIN_SECONDS = 8
"""How long a request may take to finish. Whoever stops the process has to wait a little longer."""


class DrainingServer(uvicorn.Server):
    """Sets `draining` at once when it is asked to stop."""

    def __init__(self, config: uvicorn.Config, draining: threading.Event) -> None:
        super().__init__(config)
        self._draining = draining

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Hear the signal before uvicorn does."""
        self._draining.set()
        super().handle_exit(sig, frame)


def main() -> None:
    """Serve on a socket that is inherited, or on an address."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fd", type=int)
    arguments = parser.parse_args()
    try:
        configure_logging()
        settings = ServiceSettings.from_environment()
    except ValueError as error:
        sys.exit(f"nextrapolate-server: {error}")
    for warning in warnings_of_unknown_settings():
        _log.warning("%s", warning)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=arguments.host,
        port=arguments.port,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        log_config=None,
        access_log=False,
        http=BoundedHttp,
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
    )
    # uvicorn would take a descriptor for a Unix socket: TCP_NODELAY would not be set on its connections, and
    # every answer would wait 40 ms for the acknowledgement of its headers.
    sockets = None if arguments.fd is None else [socket.socket(fileno=arguments.fd)]
    DrainingServer(config, app.state.draining).run(sockets)


if __name__ == "__main__":
    main()
