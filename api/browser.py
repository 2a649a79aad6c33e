"""What browsers load: /optimizer.js and a page that uses it. Neither needs a key, and both may be kept."""

from hashlib import blake2b
from pathlib import Path
from typing import Final

from flask import Response

from api.doors import Doors
from api.requests import current_request

doors = Doors("browser")

_PAGES: Final = Path(__file__).parent / "pages"
_KEPT: Final = "public, max-age=300, stale-while-revalidate=86400"


@doors.open("GET", "/optimizer.js", scope=None, gives_files=("text/javascript",), statuses=(200, 304))
def script() -> Response:
    """Send the script that decides, renders and reports in a page."""
    return _file("optimizer.js", content_type="text/javascript; charset=utf-8")


@doors.open("GET", "/optimizer.html", scope=None, gives_files=("text/html",), statuses=(200, 304))
def example() -> Response:
    """Send an example page."""
    return _file("example.html", content_type="text/html; charset=utf-8")


def _file(name: str, *, content_type: str) -> Response:
    data = (_PAGES / name).read_bytes()
    answer = Response(data, content_type=content_type)
    answer.set_etag(blake2b(data, digest_size=16).hexdigest())
    answer.headers["Cache-Control"] = _KEPT
    answer.headers["Access-Control-Allow-Origin"] = "*"  # so that a page may check it (integrity)
    answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    answer.make_conditional(current_request())
    return answer
