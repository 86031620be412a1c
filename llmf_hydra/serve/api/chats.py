"""`POST /v1/chat/completions`: answers to a dialogue, with calls of tools."""

import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any

import anyio
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from llmf_hydra.serve.api.answering import Events, Service, begun
from llmf_hydra.serve.api.errors import ApiError
from llmf_hydra.serve.api.forms import constraint_maker
from llmf_hydra.serve.api.gate import while_there
from llmf_hydra.serve.api.merging import merged
from llmf_hydra.serve.api.messages import read_messages, read_tools, written_calls
from llmf_hydra.serve.api.protocol import ChatRequest, usage
from llmf_hydra.serve.calls import before_calls, calls_in
from llmf_hydra.serve.engine import Answer, Piece, Request, Stream, Token, Tools
from llmf_hydra.serve.loading import Model


async def answer(service: Service, asked: ChatRequest, http: HttpRequest) -> Response:
    """The answer to a request, whole or as a stream. Raises ApiError, BadRow and TooLong."""
    refuse_scorer(service.engine.loaded)
    most = asked.max_completion_tokens or asked.max_tokens
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    decoding = service.decoding(asked, most, logprobs=logprobs)
    tools = read_tools(asked.tools) if asked.tool_choice != "none" else None
    messages = read_messages(asked.messages)
    prompt = service.engine.prompt(messages, tools)
    find = partial(constraint_maker, service.engine, asked, messages, tools, prompt, decoding)
    constraint = await anyio.to_thread.run_sync(find, limiter=service.threads)
    requests = service.requests([prompt], decoding, asked.n or 1, constraint)
    if asked.stream:
        return await _streamed(service, asked, requests, tools, http)

    async def work() -> list[Answer]:
        async with service.gate.place():
            return await service.answers(requests)

    answers = await while_there(http, work)
    loaded = service.engine.loaded
    choices = [_choice(number, one, tools, loaded, with_logprobs=logprobs is not None)
               for number, one in enumerate(answers)]  # fmt: skip
    tokens = usage(len(prompt), sum(len(one.tokens) for one in answers))
    return JSONResponse({**_head(service, "chat.completion"), "choices": choices, "usage": tokens})


def refuse_scorer(loaded: Model) -> None:
    """Raise ApiError for a model that gives scores in place of text."""
    if loaded.scores:
        raise ApiError(400, "this model gives scores and no text: POST /v1/score", code="model_not_supported")


def _head(service: Service, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": service.model
    }  # fmt: skip


def _choice(
    number: int, answer: Answer, tools: Tools | None, loaded: Model, *, with_logprobs: bool
) -> dict[str, Any]:
    calls = written_calls(calls_in(answer, loaded, tools)) if tools else []
    said = before_calls(answer.text, answer.ids, loaded) or None if calls else answer.text
    message: dict[str, Any] = {"role": "assistant", "content": said}
    if calls:
        message["tool_calls"] = calls
    return {
        "index": number,
        "message": message,
        "logprobs": {"content": logprobs_of(answer.tokens, loaded)} if with_logprobs else None,
        "finish_reason": "tool_calls" if calls else answer.finish.value,
    }


def logprobs_of(tokens: Sequence[Token], loaded: Model) -> list[dict[str, Any]]:
    """Log-probabilities as the protocol has them."""
    return [
        {
            **_token(token.id, token.logprob or 0.0, loaded),
            "top_logprobs": [_token(other, logprob, loaded) for other, logprob in token.top],
        }
        for token in tokens
    ]


def _token(token: int, logprob: float, loaded: Model) -> dict[str, Any]:
    text = str(loaded.tokenizer.decode([token]))
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


async def _streamed(
    service: Service, asked: ChatRequest, requests: Sequence[Request], tools: Tools | None, http: HttpRequest
) -> Response:
    streams, leave = await begun(service, requests, http)
    return Events(_events(service, asked, requests, streams, tools), leave)


async def _events(
    service: Service,
    asked: ChatRequest,
    requests: Sequence[Request],
    streams: Sequence[Stream],
    tools: Tools | None,
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a stream."""
    head, loaded = _head(service, "chat.completion.chunk"), service.engine.loaded
    with_usage = asked.stream_options is not None and asked.stream_options.include_usage
    head = {**head, "usage": None} if with_usage else head
    since, count = time.monotonic(), 0
    grown = [
        Growth(number, loaded, tools, with_logprobs=bool(asked.logprobs)) for number in range(len(streams))
    ]
    for number in range(len(streams)):
        yield {**head, "choices": [_chunk(number, {"role": "assistant", "content": ""})]}
    async for number, piece in merged([service.pieces(stream, since) for stream in streams]):
        count += len(piece.tokens)
        for chunk in grown[number].chunks(piece):
            yield {**head, "choices": [chunk]}
    prompt = len(requests[0].prompt)
    service.metrics.tokens(prompt, count)
    if with_usage:
        yield {**head, "choices": [], "usage": usage(prompt, count)}


class Growth:
    """An answer as it grows, in chunks. With tools it is held back from where a call may be beginning."""

    def __init__(self, number: int, loaded: Model, tools: Tools | None, *, with_logprobs: bool):
        self._number, self._loaded, self._tools = number, loaded, tools
        self._with_logprobs = with_logprobs
        self._text, self._tokens = "", list[Token]()
        self._given, self._told = 0, 0  # characters and tokens that were handed out

    def chunks(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """The chunks that a piece makes certain; the last one says why the answer ended."""
        self._text += piece.text
        self._tokens += piece.tokens
        if piece.finish is None:
            yield from self._content(len(self._certain()))
            return
        answer = Answer(self._text, tuple(self._tokens), piece.finish)
        calls = written_calls(calls_in(answer, self._loaded, self._tools)) if self._tools else []
        yield from self._content(len(self._certain()) if calls else len(self._text))
        if calls:
            numbered = [{"index": at, **call} for at, call in enumerate(calls)]
            yield _chunk(self._number, {"tool_calls": numbered}, logprobs=self._logprobs())
        yield _chunk(self._number, {}, "tool_calls" if calls else piece.finish.value)

    def _certain(self) -> str:
        """The text so far that is part of no call."""
        if not self._tools:
            return self._text
        return before_calls(self._text, [token.id for token in self._tokens], self._loaded)

    def _content(self, upto: int) -> Iterator[dict[str, Any]]:
        text, self._given = self._text[self._given : upto], max(self._given, upto)
        waits = self._tools and not text  # tokens without text, perhaps of a call
        logprobs = None if waits else self._logprobs()
        if text or logprobs:
            yield _chunk(self._number, {"content": text}, logprobs=logprobs)

    def _logprobs(self) -> dict[str, Any] | None:
        """Those of the tokens that none was told of, if they are asked for."""
        tokens, self._told = self._tokens[self._told :], len(self._tokens)
        return {"content": logprobs_of(tokens, self._loaded)} if self._with_logprobs and tokens else None


def _chunk(
    number: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None
) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
