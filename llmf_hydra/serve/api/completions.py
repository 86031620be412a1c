"""`POST /v1/completions`: texts that are gone on with, and `POST /v1/score`: what a reward model thinks of answers."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import anyio
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from llmf_hydra.serve.api.answering import Events, Service, begun
from llmf_hydra.serve.api.chats import refuse_scorer
from llmf_hydra.serve.api.errors import ApiError
from llmf_hydra.serve.api.gate import while_there
from llmf_hydra.serve.api.merging import merged
from llmf_hydra.serve.api.messages import read_messages
from llmf_hydra.serve.api.protocol import CompletionRequest, ScoreRequest, usage
from llmf_hydra.serve.engine import Answer, Request, Stream, Token
from llmf_hydra.serve.loading import Model


async def complete(service: Service, asked: CompletionRequest, http: HttpRequest) -> Response:
    """The continuations of a request's prompts, whole or as a stream. Raises ApiError and TooLong."""
    refuse_scorer(service.engine.loaded)
    decoding = service.decoding(asked, asked.max_tokens, logprobs=asked.logprobs)
    prompts = _prompts(service, asked.prompt)
    requests = service.requests(prompts, decoding, asked.n or 1)
    if asked.stream:
        return await _streamed(service, asked, requests, http)

    async def work() -> list[Answer]:
        async with service.gate.place():
            return await service.answers(requests)

    answers = await while_there(http, work)
    choices = [_choice(number, one.text, one.tokens, one.finish.value, asked.logprobs, service.engine.loaded)
               for number, one in enumerate(answers)]  # fmt: skip
    tokens = usage(sum(map(len, prompts)), sum(len(one.tokens) for one in answers))
    return JSONResponse({**_head(service), "choices": choices, "usage": tokens})


def _prompts(service: Service, given: object) -> list[list[int]]:
    """Token ids of each prompt: of one text, one list of ids, or several of either."""
    items: list[Any] = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    prompts = [service.engine.tokenize(item) if isinstance(item, str) else item for item in items]
    vocabulary = len(service.engine.loaded.tokenizer)
    for prompt in prompts:
        if any(token >= vocabulary for token in prompt):
            raise ApiError(400, f"prompt holds a token id above {vocabulary - 1}", param="prompt")
    return prompts


def _head(service: Service) -> dict[str, Any]:
    named = f"cmpl-{secrets.token_hex(12)}"
    return {"id": named, "object": "text_completion", "created": int(time.time()), "model": service.model}


def _choice(
    number: int, text: str, tokens: Sequence[Token], finish: str | None, logprobs: int | None, loaded: Model
) -> dict[str, Any]:
    told = None if logprobs is None else _logprobs(tokens, loaded)
    return {"index": number, "text": text, "logprobs": told, "finish_reason": finish}


def _logprobs(tokens: Sequence[Token], loaded: Model) -> dict[str, Any]:
    texts = [str(loaded.tokenizer.decode([token.id])) for token in tokens]
    offsets = [sum(map(len, texts[:at])) for at in range(len(texts))]
    return {
        "tokens": texts,
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [
            {str(loaded.tokenizer.decode([other])): logprob for other, logprob in token.top}
            for token in tokens
        ],
        "text_offset": offsets,
    }


async def _streamed(
    service: Service, asked: CompletionRequest, requests: Sequence[Request], http: HttpRequest
) -> Response:
    streams, leave = await begun(service, requests, http)
    return Events(_events(service, asked, requests, streams), leave)


async def _events(
    service: Service, asked: CompletionRequest, requests: Sequence[Request], streams: Sequence[Stream]
) -> AsyncIterator[dict[str, Any]]:
    head, loaded = _head(service), service.engine.loaded
    since, count = time.monotonic(), 0
    async for number, piece in merged([service.pieces(stream, since) for stream in streams]):
        count += len(piece.tokens)
        finish = piece.finish.value if piece.finish else None
        if piece.text or finish or asked.logprobs is not None:
            choice = _choice(number, piece.text, piece.tokens, finish, asked.logprobs, loaded)
            yield {**head, "choices": [choice]}
    prompt = sum(len(request.prompt) for request in requests[:: asked.n or 1])
    service.metrics.tokens(prompt, count)
    if asked.stream_options is not None and asked.stream_options.include_usage:
        yield {**head, "choices": [], "usage": usage(prompt, count)}


async def score(service: Service, asked: ScoreRequest, http: HttpRequest) -> Response:
    """The score of each dialogue or text. Raises ApiError and BadRow."""
    service.check_model(asked.model)
    engine = service.engine
    if not engine.loaded.scores:
        message = "this model gives text and no scores: serve a run of stage=rm"
        raise ApiError(400, message, code="model_not_supported")
    prompts = [engine.tokenize(item) if isinstance(item, str) else engine.dialogue(read_messages(item))
               for item in asked.input]  # fmt: skip
    limit = engine.loaded.limit
    for at, prompt in enumerate(prompts):
        if not prompt or (limit is not None and len(prompt) > limit):
            message = f"input.{at} has {len(prompt)} tokens, and the model takes 1 to {limit}"
            raise ApiError(400, message, param=f"input.{at}")

    async def work() -> list[float]:
        async with service.gate.place():
            return await anyio.to_thread.run_sync(partial(engine.score, prompts), limiter=service.threads)

    scores = await while_there(http, work)
    data = [{"object": "score", "index": at, "score": one} for at, one in enumerate(scores)]
    count = sum(map(len, prompts))
    return JSONResponse({"object": "list", "model": service.model, "data": data, "usage": usage(count, 0)})
