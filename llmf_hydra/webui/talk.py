"""A model behind `job=api` in a process of its own, spoken to by OpenAI's protocol, and ended with the page."""

import json
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import httpx

from llmf_hydra.config.secrets import learn_words, masked_text
from llmf_hydra.errors import NO_VALUE, LlmfError, Problem, Refused
from llmf_hydra.runs import isolation
from llmf_hydra.webui.commands import environment, shown, tail
from llmf_hydra.webui.fields import Place

START, ANSWER = 600.0, 300.0  # seconds that a model has to load, and to send something of an answer


class Message(TypedDict):
    """A turn of a chat."""

    role: str
    content: str


class Model:
    """A server of one model on a free port of the loopback, whose key nobody else knows."""

    def __init__(self, words: Sequence[str], place: Place):
        """Start `job=api` with these words."""
        self.words = ["job=api", *words]
        self._key = secrets.token_urlsafe(24)
        self._port = free_port()
        learn_words(words)
        self._log = tempfile.NamedTemporaryFile(prefix="llmf-chat-", suffix=".txt")  # noqa: SIM115 -- of the process
        self._process = subprocess.Popen(
            isolation.command(
                "llmf_hydra.webui.tether", *self.words, "serve.host=127.0.0.1", f"serve.port={self._port}"
            ),
            cwd=place.cwd,
            env={**environment(), "API_KEY": self._key},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def shown(self) -> str:
        """The command as it would be typed."""
        return shown(self.words)

    @property
    def output(self) -> str:
        """The end of what the server has printed."""
        return tail(Path(self._log.name))

    def starting(self) -> Iterator[str]:
        """Wait until the model answers, telling how it stands. Raises Refused with what the server said if it ends."""
        end = time.monotonic() + START
        while self._process.poll() is None and time.monotonic() < end:
            try:
                if httpx.get(f"{self._address}/health", timeout=5, trust_env=False).is_success:
                    return
            except httpx.HTTPError:
                pass  # not yet
            yield self.output.strip().rpartition("\n")[2] or "starting"
            time.sleep(0.3)
        self.stop()
        raise Refused([Problem("chat", NO_VALUE, self.output.strip() or "the server has ended")])

    async def answer(self, messages: Sequence[Message], settings: dict[str, float]) -> AsyncIterator[str]:
        """The pieces of an answer as they come. Raises LlmfError with what the server says is wrong."""
        asked = {"model": await self._name(), "messages": list(messages), "stream": True, **settings}
        try:
            async with (
                self._client() as client,
                client.stream("POST", "/v1/chat/completions", json=asked) as response,
            ):
                if not response.is_success:
                    raise LlmfError(_reason((await response.aread()).decode(errors="replace")))
                async for line in response.aiter_lines():
                    piece = _piece(line)
                    if piece:
                        yield piece
        except httpx.HTTPError as error:
            raise LlmfError(f"the server does not answer: {error or type(error).__name__}") from error

    def stop(self) -> None:
        """Have the server end, without waiting for it. Safe to call twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def _name(self) -> str:
        async with self._client() as client:
            try:
                return (await client.get("/v1/models")).json()["data"][0]["id"]
            except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
                raise LlmfError(f"the server names no model: {error}") from error

    @property
    def _address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _client(self) -> httpx.AsyncClient:
        key = {"Authorization": f"Bearer {self._key}"}
        return httpx.AsyncClient(base_url=self._address, headers=key, timeout=ANSWER, trust_env=False)


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def _piece(line: str) -> str:
    """The text in a line of a stream of events."""
    if not line.startswith("data:") or line == "data: [DONE]":
        return ""
    event = json.loads(line.removeprefix("data:"))
    if "error" in event:
        raise LlmfError(_reason(json.dumps(event)))
    return "".join(choice.get("delta", {}).get("content") or "" for choice in event.get("choices", ()))


def _reason(body: str) -> str:
    try:
        content = json.loads(body)
        error = content.get("error", content)
        return masked_text(
            str(error.get("message") or error.get("detail") or error if isinstance(error, dict) else error)
        )
    except (ValueError, AttributeError):
        return masked_text(body[:500])
