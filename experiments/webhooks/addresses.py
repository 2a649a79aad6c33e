"""Where messages may go: what a URL may be, and which addresses are private."""

import ipaddress
from urllib.parse import urlsplit

import httpx

from experiments.input.checks import shown


def wrong_url(url: str, *, allows_private: bool) -> str | None:
    """What is wrong with a webhook's URL; None if nothing is.

    Host names are looked up when something is sent, since they may lead elsewhere by then (``post.py``).

    Args:
        url: As it was put.
        allows_private: Whether it may name a private address.
    """
    try:
        parsed, port = httpx.URL(url), urlsplit(url).port  # both must be able to read it
    except (httpx.InvalidURL, ValueError):
        return f"must be a URL such as https://hooks.example/optimizer, not {shown(url)}"
    if parsed.scheme not in {"http", "https"} or not parsed.host or port == 0:
        return f"must be an http or https URL with a host, not {shown(url)}"
    if parsed.userinfo or "@" in parsed.netloc.decode():
        return "must not hold a user or password: messages are signed instead"
    if parsed.fragment:
        return "must not have a fragment (#…): it would not be sent"
    if not allows_private and is_private(parsed.host):
        return f"must not be a private address, such as {shown(parsed.host)} (setting OPTIMIZER_WEBHOOKS_PRIVATE)"
    return None


def origin_of(url: str) -> str:
    """What may be said of a URL elsewhere: its path and query can be secrets.

    >>> origin_of("https://hooks.example:8443/T01/secret?key=1")
    'https://hooks.example:8443'
    """
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode()}"


def is_private(host: str) -> bool:
    """Whether a host is an address that the internet does not route; a name is not, before it is looked up.

    >>> [is_private(host) for host in ("10.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "8.8.8.8", "hooks.example")]
    [True, True, True, False, False]
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner:
            return is_private(str(inner))
        if address in _NAT64:
            return is_private(str(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)))
    return not address.is_global or address.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
