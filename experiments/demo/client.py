"""A small client of the HTTP contract: JSON over one connection that is kept alive."""

import http.client
import time
from http import HTTPStatus
from typing import Any, Final, Self

import orjson

from experiments.errors import DemoFailed

_ATTEMPTS: Final = 10
_PAUSE_SECONDS: Final = 1.0


class Client:
    """One connection to a server, with a key.

    Raises:
        DemoFailed: The server answers with a problem.
    """

    def __init__(self, port: int, *, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str) -> Any:
        """Read something."""
        return self._ask("GET", path)

    def put(self, path: str, body: object) -> Any:
        """Define something."""
        return self._ask("PUT", path, body=body)

    def post(self, path: str, body: object) -> Any:
        """Do something."""
        return self._ask("POST", path, body=body)

    def _ask(self, method: str, path: str, *, body: object = None) -> Any:
        """Ask until the server isn't busy; every request of the demo may be sent twice."""
        sent = None if body is None else orjson.dumps(body)
        for attempt in range(_ATTEMPTS):
            self._connection.request(method, path, body=sent, headers=self._headers)
            response = self._connection.getresponse()
            answer = response.read()
            if response.status != HTTPStatus.SERVICE_UNAVAILABLE or attempt == _ATTEMPTS - 1:
                break
            time.sleep(_PAUSE_SECONDS)
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise DemoFailed(f"{method} {path} answered {response.status}", said=answer.decode(errors="replace"))
        return orjson.loads(answer)
