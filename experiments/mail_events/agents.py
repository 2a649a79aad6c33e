"""Which opens and clicks are taken for machines': the list to maintain, in one place.

Seen in user agents, last looked through in November 2026. Not on it, on purpose: ``GoogleImageProxy`` and
``YahooMailProxy``. They fetch a picture when somebody opens the email, so that such an open is mostly a person's.
Outlook's SafeLinks and most gateways come with the name of an ordinary browser: only their haste gives them away
(``rows.HASTE``). None of the senders says whether a link was fetched by HEAD; tools that know report
``"machine": true``.
"""

import re
from typing import Final

_SCANNERS: Final = (
    "barracuda",
    "mimecast",
    "proofpoint",
    "forcepoint",
    "symantec",
    "messagelabs",
    "trendmicro",
    "sophos",
    "fortiguard",
    "cloudmark",
    "bitdefender",
    "google-safety",
    "safelinks",
)
_LINK_PREVIEWS: Final = (
    "bingpreview",
    "skypeuripreview",
    "slackbot",
    "slack-imgproxy",
    "facebookexternalhit",
    "telegrambot",
    "discordbot",
    "linkedinbot",
    "twitterbot",
    "googlebot",
    "bingbot",
    "applebot",
)
_PROGRAMS: Final = (
    "headlesschrome",
    "phantomjs",
    "python-requests",
    "python-urllib",
    "aiohttp/",
    "go-http-client",
    "okhttp",
    "java/",
    "libwww-perl",
    "curl/",
    "wget/",
)
_NAMED: Final = re.compile(
    "|".join(f"(?P<{name}>{'|'.join(map(re.escape, parts))})" for name, parts in {
        "scanner": _SCANNERS,
        "link_preview": _LINK_PREVIEWS,
        "program": _PROGRAMS,
    }.items()),
    re.IGNORECASE,
)  # fmt: skip
_APPLE_PRIVACY: Final = "Mozilla/5.0"  # all that Apple's Mail Privacy Protection says of itself
_CONSIDERED: Final = ("open", "click", "unsubscribe")
_LOOKED_AT: Final = 1_000  # characters


def machine_of(kind: str, agent: str | None) -> str | None:
    """Why an event with a user agent is taken for a machine's; None if it isn't.

    >>> machine_of("open", "Mozilla/5.0")
    'apple_privacy_proxy'
    >>> machine_of("click", "Mozilla/5.0 (Windows NT 6.1) BingPreview/1.0b")
    'link_preview'
    >>> machine_of("open", "Mozilla/5.0 (via ggpht.com GoogleImageProxy)") is None
    True
    """
    if agent is None or kind not in _CONSIDERED:
        return None
    if kind == "open" and agent.strip() == _APPLE_PRIVACY:
        return "apple_privacy_proxy"
    found = _NAMED.search(agent[:_LOOKED_AT])
    return None if found is None else found.lastgroup
