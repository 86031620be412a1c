"""The application: its endpoints, and what becomes of errors."""

import logging
import time
import traceback
from collections.abc import Sequence
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from llmf_hydra import __version__
from llmf_hydra.config.schema import Config
from llmf_hydra.data.rows import BadRow
from llmf_hydra.serve.api import chats, completions
from llmf_hydra.serve.api.answering import Service
from llmf_hydra.serve.api.errors import ApiError
from llmf_hydra.serve.api.gate import Gate
from llmf_hydra.serve.api.metrics import Metrics
from llmf_hydra.serve.api.middleware import Guard
from llmf_hydra.serve.api.protocol import (
    MOST_ANSWERS,
    MOST_PROMPTS,
    ChatRequest,
    CompletionRequest,
    ScoreRequest,
)
from llmf_hydra.serve.engine import Engine
from llmf_hydra.serve.speaking import Closed, TooLong

log = logging.getLogger(__name__)
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "content": {"application/json": {"schema": {"type": "object"}}}}
    for status, what in {
        400: "A field is wrong, or asks for what isn't there",
        401: "The API key is missing or wrong",
        404: "No such model",
        413: "The body is too large",
        429: "Too many requests wait",
        503: "The server is ending",
    }.items()
}


def build(cfg: Config, engine: Engine) -> FastAPI:
    """The application that serves a model."""
    serve = cfg.serve
    gate = Gate(serve.max_concurrent, serve.max_waiting)
    metrics = Metrics(gate, engine)
    name = serve.model_name or engine.loaded.name
    threads = CapacityLimiter(serve.max_concurrent * MOST_ANSWERS * MOST_PROMPTS)
    service = Service(
        engine, cfg.generation, name, serve.max_tokens, gate, metrics, threads, int(time.time())
    )
    app = FastAPI(title="llmf_hydra", version=__version__, redoc_url=None)
    most = round(serve.max_body_mb * 1_000_000)
    app.add_middleware(
        Guard, key=serve.api_key, most_bytes=most, root=serve.root_path, metrics=metrics, verbose=serve.verbose
    )  # fmt: skip
    app.state.service = service
    _answer_errors(app)
    _add_endpoints(app, service)
    return app


def _add_endpoints(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", responses=ERRORS)
    async def chat(asked: ChatRequest, request: Request) -> Response:
        """Answer a dialogue."""
        return await chats.answer(service, asked, request)

    @app.post("/v1/completions", responses=ERRORS)
    async def complete(asked: CompletionRequest, request: Request) -> Response:
        """Go on with a text."""
        return await completions.complete(service, asked, request)

    @app.post("/v1/score", responses=ERRORS)
    async def score(asked: ScoreRequest, request: Request) -> Response:
        """Score answers with a reward model."""
        return await completions.score(service, asked, request)

    @app.get("/v1/models", responses={401: ERRORS[401]})
    async def models() -> dict[str, Any]:
        """The model that is served."""
        return {"object": "list", "data": [_model(service)]}

    @app.get("/v1/models/{name:path}", responses={401: ERRORS[401], 404: ERRORS[404]})
    async def model(name: str) -> dict[str, Any]:
        """The same, by its name."""
        service.check_model(name)
        return _model(service)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok", "model": service.model}

    @app.get("/metrics", responses={401: ERRORS[401]})
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _model(service: Service) -> dict[str, Any]:
    return {"id": service.model, "object": "model", "created": service.created, "owned_by": "llmf_hydra"}


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def told(request: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _invalid(error.errors(), error.body).response()

    @app.exception_handler(BadRow)
    async def refused(request: Request, error: BadRow) -> JSONResponse:
        sentence = f"{error.field or 'messages'} {error.what}" + (f"; {error.remedy}" if error.remedy else "")
        return ApiError(400, sentence, param=error.field or "messages").response()

    @app.exception_handler(TooLong)
    async def too_long(request: Request, error: TooLong) -> JSONResponse:
        return ApiError(400, str(error), param="messages", code="context_length_exceeded").response()

    @app.exception_handler(Closed)
    async def closed(request: Request, error: Closed) -> JSONResponse:
        return ApiError(503, "the server is ending").response()

    @app.exception_handler(HTTPException)
    async def missing(request: Request, error: HTTPException) -> JSONResponse:
        return ApiError(error.status_code, str(error.detail), headers=error.headers).response()

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        log.error("%s", "".join(traceback.format_exception(error)))
        return ApiError(500, "the server failed; its log says why").response()


def _invalid(errors: Sequence[Any], body: Any) -> ApiError:
    """What is told of a body that doesn't fit; of a field of several types, why the value of one of them is wrong."""
    first = next((one for one in errors if not one["type"].endswith("_type")), errors[0])
    field = _field(first["loc"][1:], body)
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        what = "is no field that this server reads"
    return ApiError(400, f"{field or 'body'}: {what}", param=field or None)


def _field(location: Sequence[str | int], body: Any) -> str:
    """The place of an error in the body, without the names of types that stand between."""
    parts: list[str] = []
    for part in location:
        if isinstance(body, dict) and isinstance(part, str):
            parts.append(part)
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            parts.append(str(part))
            body = body[part]
    return ".".join(parts)
