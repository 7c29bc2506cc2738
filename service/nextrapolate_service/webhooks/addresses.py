"""Which addresses a webhook may have: public ones, and those in networks that the operator allows.

Whoever submits jobs must not make this server talk to its own neighbours (server-side request forgery).
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from nextrapolate_service.errors import RefusedWebhookError
from nextrapolate_service.settings import Network

Address = IPv4Address | IPv6Address

_PORTS = range(1, 1 << 16)
_NAT64 = IPv6Network("64:ff9b::/96")
_NEVER_PUBLIC = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # of protocols, and 192.0.0.192 of Oracle's instance metadata (RFC 6890)
            "192.88.99.0/24",  # relays of 6to4, which are no more (RFC 7526)
            "168.63.129.16/32",  # Azure's host, seen from its guests
            "::/96",  # IPv4 in IPv6, as it was once written (RFC 4291, 2.5.5.1)
            "::ffff:0:0:0/96",  # IPv4 in IPv6, translated (RFC 2765, 2.1)
            "64:ff9b:1::/48",  # IPv4 in IPv6, translated by a network of its own (RFC 8215)
            "5f00::/16",  # segments within a routing domain (RFC 9602)
            "fec0::/10",  # a site's own, as they were once (RFC 3879)
        ),
    )
)
"""What some version of Python takes for public, and what leads to a neighbour, or to nobody."""


def check_webhook(url: str, networks: Iterable[Network]) -> None:
    """Refuse what can be refused of a webhook without asking anybody.

    Raises:
        RefusedWebhookError: it is no URL, its host can be no name, or is an address that is not allowed, or
            there is no such port.
    """
    try:
        parsed = httpx.URL(url)
        parsed.raw_host.decode("ascii").encode("idna")  # as it will be where it is looked up
        host, port = parsed.host, 443 if parsed.port is None else parsed.port
    except (httpx.InvalidURL, UnicodeError) as error:
        raise _refused(f"this is not a valid URL ({error}): fix it") from None
    if port not in _PORTS:
        raise _refused(
            f"{port} is not a valid port: give one from {_PORTS[0]} to {_PORTS[-1]}, or none for 443"
        )
    try:
        check_address(ip_address(host), networks)
    except ValueError:  # a name, which is looked up when it is told
        return


def check_address(address: Address, networks: Iterable[Network]) -> None:
    """Refuse an address that is not public, unless it lies in one of the networks.

    Raises:
        RefusedWebhookError: it does not.
    """
    if any(address in network for network in networks):
        return
    for meant in _meant(address):
        if not _is_public(meant):
            raise _refused(
                f"{address} is not a public address: give one, or ask the server's operator to allow its "
                "network"
            )


def _refused(why: str) -> RefusedWebhookError:
    return RefusedWebhookError(why, field="webhook.url")


def _is_public(address: Address) -> bool:
    if any(address in network for network in _NEVER_PUBLIC):
        return False
    return address.is_global and not address.is_multicast


def _meant(address: Address) -> Iterator[Address]:
    """Give the address, and those IPv4 addresses that it leads on to."""
    yield address
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            yield address.ipv4_mapped
        if address.sixtofour:
            yield address.sixtofour
        if address.teredo:
            yield from address.teredo
        if address in _NAT64:
            yield IPv4Address(address.packed[-4:])
