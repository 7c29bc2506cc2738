"""One attempt to tell a webhook."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

import httpx

from nextrapolate_service.errors import RefusedWebhookError
from nextrapolate_service.settings import Network
from nextrapolate_service.webhooks.addresses import Address, check_address
from nextrapolate_service.webhooks.message import SignedMessage
from nextrapolate_service.webhooks.names import Names

_CONNECTS_WITHIN_SECONDS = 5.0
_ANSWERS_WITHIN_SECONDS = 15.0
_GONE = 410


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        status: of the answer, if there was one.
        error: why the webhook does not count as told; None where it does.
        is_final: another attempt would end the same way.
    """

    status: int | None
    error: str | None
    is_final: bool = False


class Sender:
    """Sends to the very address that was checked, over TLS for the name that was given; follows nobody."""

    def __init__(self, http: httpx.AsyncClient, names: Names, networks: tuple[Network, ...]) -> None:
        self._http = http
        self._names = names
        self._networks = networks

    @classmethod
    @asynccontextmanager
    async def open(cls, networks: tuple[Network, ...]) -> AsyncIterator["Sender"]:
        """Make one; `networks` may be told although they are not public."""
        async with httpx.AsyncClient(
            verify=certificates(),
            timeout=httpx.Timeout(_ANSWERS_WITHIN_SECONDS, connect=_CONNECTS_WITHIN_SECONDS),
            # Connections are told apart by address: one that is kept would serve another name of the same.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,  # a proxy would look the name up for itself
            follow_redirects=False,
            headers={"User-Agent": f"nextrapolate/{version('nextrapolate')}"},
        ) as http:
            names = Names()
            try:
                yield cls(http, names, networks)
            finally:
                names.close()

    async def send(self, tenant: str, url: str, message: SignedMessage) -> Outcome:
        """Tell a webhook of the tenant once; whatever goes wrong is in what comes back."""
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN_SECONDS):
                status = await self._post(tenant, httpx.URL(url), message)
        except RefusedWebhookError as refused:
            return Outcome(None, str(refused), is_final=True)
        except TimeoutError:
            return Outcome(None, f"no answer within {_ANSWERS_WITHIN_SECONDS:g} s")
        except (httpx.HTTPError, OSError) as error:
            return Outcome(None, str(error) or type(error).__name__)
        if 200 <= status < 300:
            return Outcome(status, None)
        if 300 <= status < 400:
            return Outcome(status, f"it answered {status}, and redirects are not followed")
        return Outcome(status, f"it answered {status}", is_final=status == _GONE)

    async def _post(self, tenant: str, url: httpx.URL, message: SignedMessage) -> int:
        host = url.raw_host.decode("ascii")
        address = await self._address(tenant, host, url.port or 443)
        request = self._http.build_request(
            "POST",
            url.copy_with(host=str(address)),
            headers={**message.headers, "Host": url.netloc.decode("ascii")},
            content=message.body,
            extensions={"sni_hostname": host},
        )
        # As a stream, of which nothing is read: its status says all.
        response = await self._http.send(request, stream=True)
        await response.aclose()
        return response.status_code

    async def _address(self, tenant: str, host: str, port: int) -> Address:
        """Look a name up, once: what comes back has been checked, and is the one to connect to.

        What a name stands for in the server's own network is not told to whoever asked for the webhook.
        """
        addresses = await self._names.look_up(tenant, host, port)
        try:
            for address in addresses:
                check_address(address, self._networks)
        except RefusedWebhookError:
            raise RefusedWebhookError(
                f"{host} is not at a public address: give one that is, or ask the server's operator to allow "
                "its network",
                field="webhook.url",
            ) from None
        return addresses[0]


@cache
def certificates() -> ssl.SSLContext:
    """Trust the authorities that everybody does, and those of this machine (SSL_CERT_FILE, SSL_CERT_DIR).

    To read them all takes a tenth of a second: a process does it once.
    """
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context
