"""What chats and completions share: requests to the engine and their answers, whole or as they grow."""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
from anyio import CapacityLimiter
from starlette.requests import Request as HttpRequest
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.serve.api.errors import ApiError
from llmf_hydra.serve.api.gate import Gate, while_there
from llmf_hydra.serve.api.metrics import Metrics
from llmf_hydra.serve.api.protocol import Generating
from llmf_hydra.serve.constraint import Constraint
from llmf_hydra.serve.engine import Answer, Decoding, Engine, Finish, Piece, Request, Stream, Token


@dataclass(frozen=True)
class Service:
    """What every endpoint needs."""

    engine: Engine
    generation: GenerationConfig
    model: str  # the name that requests give
    max_tokens: int | None
    gate: Gate
    metrics: Metrics
    threads: CapacityLimiter  # that wait for the engine
    created: int  # Unix time

    def check_model(self, named: str | None) -> None:
        """Raise ApiError for another model than the one that is served."""
        if named is not None and named != self.model:
            message = f"no model '{named}' is served here; the one that is served is '{self.model}'"
            raise ApiError(404, message, param="model", code="model_not_found")

    def decoding(self, asked: Generating, most: int | None, **changed: Any) -> Decoding:
        """How an answer is decoded: as the request says, and where it doesn't, as the config does."""
        self.check_model(asked.model)
        if most is not None and self.max_tokens is not None and most > self.max_tokens:
            raise ApiError(
                400, f"max_tokens={most} is above {self.max_tokens} (serve.max_tokens)", param="max_tokens"
            )
        given = {name: value for name in ("temperature", "top_p", "top_k", "repetition_penalty", "skip_special_tokens",
                                          "seed") if (value := getattr(asked, name)) is not None}  # fmt: skip
        if asked.temperature is not None:
            given["do_sample"] = asked.temperature > 0
            given["temperature"] = asked.temperature or 1.0
        decoding = Decoding.of(self.generation, stop=asked.stops, **given, **changed)
        if decoding.num_beams > 1 and decoding.logprobs is not None:
            raise ApiError(400, f"logprobs aren't known in beam search (generation.num_beams={decoding.num_beams})",
                           param="logprobs")  # fmt: skip
        limit = most or self.max_tokens
        return replace(decoding, max_new_tokens=limit) if limit else decoding

    def requests(
        self,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        n: int,
        constraint: Callable[[], Constraint] | None = None,
    ) -> list[Request]:
        """`n` answers to each prompt; a seed that is given counts up among them. Each gets a constraint of its own."""
        seeds = [None if decoding.seed is None else decoding.seed + number for number in range(n)]
        return [Request(prompt, replace(decoding, seed=seed), constraint and constraint())
                for prompt in prompts for seed in seeds]  # fmt: skip

    def streams(self, requests: Sequence[Request]) -> list[Stream]:
        """The answers as they grow. Raises TooLong, and then none of them is on its way."""
        made: list[Stream] = []
        try:
            for request in requests:
                made.append(self.engine.stream(request))
        except BaseException:
            close(made)
            raise
        return made

    async def answers(self, requests: Sequence[Request]) -> list[Answer]:
        """The whole answers. Cancelling it cancels them."""
        since, streams = time.monotonic(), self.streams(requests)
        found: list[Answer] = [Answer("", (), Finish.CANCELLED)] * len(requests)
        failed: list[Exception] = []

        async def collect(number: int, stream: Stream) -> None:
            try:
                found[number] = await _whole(self.pieces(stream, since))
            except Exception as error:  # not in a group of exceptions, so that handlers know it
                failed.append(error)
                group.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                for number, stream in enumerate(streams):
                    group.start_soon(collect, number, stream)
        finally:
            close(streams)
        if failed:
            raise failed[0]
        self.metrics.tokens(sum(len(r.prompt) for r in requests), sum(len(a.tokens) for a in found))
        return found

    async def pieces(self, stream: Stream, since: float) -> AsyncGenerator[Piece]:
        """The pieces of an answer, waited for in a thread."""
        first = True
        while (
            piece := await anyio.to_thread.run_sync(partial(next, stream, None), limiter=self.threads)
        ) is not None:
            if first:
                self.metrics.first_token(time.monotonic() - since)
                first = False
            yield piece


def close(streams: Iterable[Stream]) -> None:
    """Cancel what has not ended."""
    for stream in streams:
        stream.close()


async def begun(
    service: Service, requests: Sequence[Request], http: HttpRequest
) -> tuple[list[Stream], Callable[[], None]]:
    """Wait for a place and begin the answers; gives their streams, and what frees the place at their end."""
    held = await while_there(http, service.gate.enter)
    try:
        streams = service.streams(requests)
    except BaseException:
        service.gate.leave(held)
        raise

    def leave() -> None:
        close(streams)
        service.gate.leave(held)

    return streams, leave


async def _whole(pieces: AsyncGenerator[Piece]) -> Answer:
    text: list[str] = []
    tokens: list[Token] = []
    finish = Finish.CANCELLED
    async for piece in pieces:
        text.append(piece.text)
        tokens += piece.tokens
        finish = piece.finish or finish
    return Answer("".join(text), tuple(tokens), finish)


class Events(StreamingResponse):
    """Server-sent events, after which (however they end) a place is given back."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[dict[str, Any]], leave: Callable[[], None]):
        super().__init__(_lines(events), headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _lines(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"
    except Exception as error:
        message = (
            error.message if isinstance(error, ApiError) else "the answer failed; the server's log says why"
        )
        yield f"data: {json.dumps(ApiError(500, message).body())}\n\n"
        raise
