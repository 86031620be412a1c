"""What every request passes first: the key, the size of its body, and the log."""

import hmac
import json
import logging
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmf_hydra.serve.api.errors import ApiError
from llmf_hydra.serve.api.metrics import Metrics

log = logging.getLogger(__name__)
OPEN = ("/health", "/openapi.json", "/docs")  # without a key
SHOWN = 500  # characters of a body that the log repeats


class Guard:
    """Asks for the key and refuses bodies that are too large, before anything else reads them.

    `root` is the path of the API behind a proxy, which may leave it in front of a request's path or not.
    """

    def __init__(
        self, app: ASGIApp, *, key: str | None, most_bytes: int, root: str, metrics: Metrics, verbose: bool
    ):
        self._app, self._key, self._most_bytes, self._root = app, key, most_bytes, root
        self._metrics, self._verbose = metrics, verbose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["root_path"] = self._root
        seen = _Seen(scope, self._verbose)
        bounded = _Bounded(receive, self._most_bytes, seen)
        try:
            self._check(scope)
            await self._app(scope, bounded, seen.sending(send))
        except ApiError as error:
            if not seen.started:
                await error.response()(scope, receive, seen.sending(send))
        finally:
            self._metrics.request(seen.route, seen.status, time.monotonic() - seen.since)
            seen.tell()

    def _check(self, scope: Scope) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        path = scope["path"].removeprefix(self._root)
        if self._key is not None and path not in OPEN:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            right = hmac.compare_digest(given.strip(), self._key.encode())
            if scheme.lower() != b"bearer" or not right:
                raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key",
                               headers={"WWW-Authenticate": "Bearer"})  # fmt: skip
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most_bytes:
            raise _too_large(self._most_bytes)


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most} bytes (serve.max_body_mb)")


class _Bounded:
    """The body of a request, up to its maximum: a length may be missing or a lie."""

    def __init__(self, receive: Receive, most: int, seen: "_Seen"):
        self._receive, self._left, self._most, self._seen = receive, most, most, seen

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            body = message.get("body", b"")
            self._left -= len(body)
            if self._left < 0:
                raise _too_large(self._most)
            self._seen.asked(body)
        return message


class _Seen:
    """What the log tells of a request."""

    def __init__(self, scope: Scope, verbose: bool):
        self.since, self.status, self.started = time.monotonic(), 0, False
        self._scope, self._verbose = scope, verbose
        self._question, self._answer = b"", b""

    @property
    def route(self) -> str:
        """The path of the endpoint, `other` for what is none: a metric must not have a label of every path."""
        route = self._scope.get("route")
        return str(getattr(route, "path", "other"))

    def asked(self, body: bytes) -> None:
        """Keep the beginning of the body."""
        self._question = (self._question + body)[:SHOWN]

    def sending(self, send: Send) -> Send:
        """The same, watched."""

        async def watched(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status, self.started = message["status"], True
            elif self._verbose and len(self._answer) < SHOWN:
                self._answer = (self._answer + message.get("body", b""))[:SHOWN]
            await send(message)

        return watched

    def tell(self) -> None:
        """A line of the log; quiet unless it is verbose."""
        if not self._verbose:
            return
        taken = time.monotonic() - self.since
        line = f"{self._scope['method']} {_plain(self._scope['path'])} {self.status} {taken:.2f} s"
        if self._scope["path"] in OPEN or not self._question:
            log.info("%s", line)
        else:
            log.info("%s\n  > %s\n  < %s", line, _shown(self._question), _shown(self._answer))


def _shown(body: bytes) -> str:
    """The beginning of a body on one line: what a client sends must not write lines of its own."""
    return _plain(body.decode("utf8", errors="replace")) + ("…" if len(body) == SHOWN else "")


def _plain(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"')
