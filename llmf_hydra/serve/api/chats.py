"""`POST /v1/chat/completions`: answers to a dialogue, with calls of tools."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from llmf_hydra.serve.api.answering import Events, Service, begun
from llmf_hydra.serve.api.errors import ApiError
from llmf_hydra.serve.api.gate import while_there
from llmf_hydra.serve.api.merging import merged
from llmf_hydra.serve.api.messages import read_messages, read_tools, written_calls
from llmf_hydra.serve.api.protocol import ChatRequest, usage
from llmf_hydra.serve.calls import calls_in
from llmf_hydra.serve.engine import Answer, Piece, Request, Stream, Token, Tools
from llmf_hydra.serve.loading import Model


async def answer(service: Service, asked: ChatRequest, http: HttpRequest) -> Response:
    """The answer to a request, whole or as a stream. Raises ApiError, BadRow and TooLong."""
    refuse_scorer(service.engine.loaded)
    most = asked.max_completion_tokens or asked.max_tokens
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    decoding = service.decoding(asked, most, logprobs=logprobs)
    tools = read_tools(asked.tools) if asked.tool_choice != "none" else None
    prompt = service.engine.prompt(read_messages(asked.messages), tools)
    requests = service.requests([prompt], decoding, asked.n or 1)
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
    message: dict[str, Any] = {"role": "assistant", "content": None if calls else answer.text}
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
    """The chunks of a stream. With tools a text may turn out to be a call, so it comes whole, at its end."""
    head, loaded = _head(service, "chat.completion.chunk"), service.engine.loaded
    with_usage = asked.stream_options is not None and asked.stream_options.include_usage
    head = {**head, "usage": None} if with_usage else head
    since, count = time.monotonic(), 0
    whole: list[list[Piece]] = [[] for _ in streams]
    for number in range(len(streams)):
        yield {**head, "choices": [_chunk(number, {"role": "assistant", "content": ""})]}
    async for number, piece in merged([service.pieces(stream, since) for stream in streams]):
        count += len(piece.tokens)
        whole[number].append(piece)
        if tools:
            if piece.finish is not None:
                yield {**head, "choices": [_at_once(number, whole[number], tools, loaded)]}
            continue
        told = {"content": logprobs_of(piece.tokens, loaded)} if asked.logprobs and piece.tokens else None
        if piece.text or told:
            yield {**head, "choices": [_chunk(number, {"content": piece.text}, logprobs=told)]}
        if piece.finish is not None:
            yield {**head, "choices": [_chunk(number, {}, piece.finish.value)]}
    prompt = len(requests[0].prompt)
    service.metrics.tokens(prompt, count)
    if with_usage:
        yield {**head, "choices": [], "usage": usage(prompt, count)}


def _chunk(
    number: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None
) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _at_once(number: int, pieces: Sequence[Piece], tools: Tools, loaded: Model) -> dict[str, Any]:
    tokens = tuple(token for piece in pieces for token in piece.tokens)
    finish = pieces[-1].finish
    assert finish is not None
    answer = Answer("".join(piece.text for piece in pieces), tokens, finish)
    calls = written_calls(calls_in(answer, loaded, tools))
    if not calls:
        return _chunk(number, {"content": answer.text}, finish.value)
    return _chunk(
        number, {"tool_calls": [{"index": at, **call} for at, call in enumerate(calls)]}, "tool_calls"
    )
