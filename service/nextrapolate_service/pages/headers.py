"""What every answer tells a browser: to run nothing but our own files, and to guess at nothing.

And a cache in between: to keep nothing. Of answers to a session's cookie it could not tell that they are for
one person: those to Authorization alone are protected by HTTP itself.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_POLICY = "Content-Security-Policy"
NOTHING_ELSE = "base-uri 'none'; frame-ancestors 'none'"

SAFE_HEADERS = {
    CONTENT_POLICY: "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    f"connect-src 'self'; form-action 'self'; {NOTHING_ELSE}",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept",
    "Cache-Control": "private, no-cache",
}


class SafeHeaders:
    """Sets these headers, where the answer has not set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, and complete the headers of its answer."""

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_safely)
