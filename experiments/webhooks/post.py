"""One attempt over HTTP: no redirect is followed, all of it has a deadline, little is read of an answer."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Final

import httpx

from experiments.webhooks.addresses import is_private
from experiments.webhooks.deliver import Answer, Parcel
from experiments.webhooks.sign import signed_headers

MAX_SECONDS: Final = 15.0
_READ_BYTES: Final = 4_096
_READ_SECONDS: Final = 1.0
_HEADERS: Final = {
    "content-type": "application/json",
    "user-agent": f"optimizer/{version('optimizer')}",
    "accept-encoding": "identity",
    "connection": "close",
}
_LONGEST_WISH_DIGITS: Final = 9


class _Refused(Exception):
    """A name that leads to a private address, where that is forbidden."""


@contextlib.asynccontextmanager
async def http_client() -> AsyncIterator[httpx.AsyncClient]:
    """A client that keeps no connection, and takes nothing from the environment (.netrc would add a password).

    It trusts the authorities that it brings along and those of the machine, a company's own among them.
    """
    trusted = httpx.create_ssl_context(trust_env=False)
    trusted.load_default_certs(ssl.Purpose.SERVER_AUTH)
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        verify=trusted, trust_env=False, follow_redirects=False, timeout=MAX_SECONDS, limits=limits
    ) as client:
        yield client


async def post(
    client: httpx.AsyncClient, parcel: Parcel, *, allows_private: bool, max_seconds: float = MAX_SECONDS
) -> Answer:
    """Send a message once; whatever happens is an answer.

    Args:
        client: As ``http_client`` makes it.
        parcel: What goes where.
        allows_private: Whether it may go to a private address.
        max_seconds: For all of it, however slowly a receiver drips.
    """
    headers = _HEADERS | signed_headers(parcel.message, parcel.body, sent_at=parcel.sent_at, keys=parcel.keys)
    try:
        async with asyncio.timeout(max_seconds):
            return await _post(client, parcel, headers=headers, allows_private=allows_private)
    except (TimeoutError, httpx.TimeoutException):
        return Answer(error="timed_out")
    except _Refused:
        return Answer(error="private_address")
    except httpx.ConnectError as error:
        return Answer(error="tls_failed" if _is_tls(error) else "connection_failed")
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, ValueError) as error:
        return Answer(error=_CLASSES.get(type(error), "connection_broken"))


async def _post(
    client: httpx.AsyncClient, parcel: Parcel, *, headers: Mapping[str, str], allows_private: bool
) -> Answer:
    url, body = httpx.URL(parcel.url), parcel.body
    if allows_private:
        return await _ask(client, client.build_request("POST", url, content=body, headers=headers))
    addresses = await _public_addresses(url)
    pinned = {**headers, "host": url.netloc.decode()}
    for address in addresses:  # the very address that was checked: the name may lead elsewhere when asked again
        request = client.build_request(
            "POST",
            url.copy_with(host=address),
            content=body,
            headers=pinned,
            extensions={"sni_hostname": url.raw_host.decode()},
        )
        try:
            return await _ask(client, request)
        except httpx.ConnectError:
            if address == addresses[-1]:
                raise
    raise _Refused


async def _ask(client: httpx.AsyncClient, request: httpx.Request) -> Answer:
    answer = await client.send(request, stream=True)
    try:
        await _read_a_little(answer)
    finally:
        await answer.aclose()
    error = None if answer.is_success else "redirected" if answer.is_redirect else "refused"
    return Answer(answer.status_code, error, wish_of(answer.headers.get("retry-after"), now=datetime.now(UTC)))


async def _read_a_little(answer: httpx.Response) -> None:
    """So that a receiver can finish what it writes; its status has come, so the rest does not matter."""
    n_read = 0
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in answer.aiter_raw():
                n_read += len(chunk)
                if n_read >= _READ_BYTES:
                    break


async def _public_addresses(url: httpx.URL) -> Sequence[str]:
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if not addresses or any(map(is_private, addresses)):
        raise _Refused
    return addresses


def wish_of(retry_after: str | None, *, now: datetime) -> timedelta | None:
    """How long a receiver wants to be left alone: seconds, or a date; None if it says neither.

    >>> wish_of("120", now=datetime(2026, 1, 1, tzinfo=UTC))
    datetime.timedelta(seconds=120)
    >>> wish_of("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", now=datetime(2026, 1, 1, tzinfo=UTC)) is None
    True
    """
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=int(text[:_LONGEST_WISH_DIGITS]))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(moment.replace(tzinfo=moment.tzinfo or UTC) - now, timedelta())


def _is_tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


_CLASSES: Final[dict[type[Exception], str]] = {
    httpx.InvalidURL: "invalid_url",
    httpx.UnsupportedProtocol: "invalid_url",
    httpx.RemoteProtocolError: "no_http",
    socket.gaierror: "unknown_host",
}
