"""The engine on vLLM (`model.infer_backend=vllm`): its `AsyncLLM`, in an event loop of its own.

vLLM pins other versions of PyTorch and Transformers than this package works with, so it is an extra for an environment
of its own, and no test here runs it.
"""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from llmf_hydra.config.schema import Config
from llmf_hydra.errors import LlmfError
from llmf_hydra.models.adapter_files import CONFIG, read
from llmf_hydra.models.base import ADAPTERS
from llmf_hydra.models.precision import at_inference
from llmf_hydra.models.sources import hubs
from llmf_hydra.optional import require
from llmf_hydra.serve.engine import Answer, Finish, Piece, Request, Token
from llmf_hydra.serve.loading import Model, describe, load_speech
from llmf_hydra.serve.speaking import Closed, Speaking, ends, room, whole

KEY = "model.infer_backend=vllm"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # for which vLLM has LoRA kernels


class VllmEngine(Speaking):
    """See `engine.Engine`; it gives text and no logits."""

    def __init__(self, cfg: Config, slots: int):
        """Load the model. Raises Refused without the package."""
        require("vllm", extra="vllm", key=KEY)
        self._loaded = describe(cfg, *load_speech(cfg))
        self._ends = ends(self._loaded, None)
        self._names, self._active = itertools.count(), 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True).start()
        self._lora = _lora(cfg)
        self._engine: Any = asyncio.run_coroutine_threadsafe(_start(cfg, slots), self._loop).result()

    @property
    def loaded(self) -> Model:
        return self._loaded

    @property
    def constraints(self) -> None:
        """See `engine.Engine`: none is followed."""
        return

    @property
    def load(self) -> tuple[int, int]:
        """See `engine.Engine`; vLLM's own queue counts as answers that are written."""
        return self._active, 0

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        """See `engine.Engine`."""
        streams = [self.stream(request) for request in requests]
        return [whole(stream) for stream in streams]

    def stream(self, request: Request) -> "VllmStream":
        """See `engine.Engine`. Raises TooLong at once."""
        limit = room(self._loaded, request)
        pieces: SimpleQueue[Piece | BaseException] = SimpleQueue()
        work = asyncio.run_coroutine_threadsafe(self._write(request, limit, pieces), self._loop)
        return VllmStream(pieces, work)

    def score(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        """Raises LlmfError: reward models are served by Transformers."""
        raise LlmfError("vLLM gives no scores here: leave model.infer_backend out")

    def next_logits(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Raises LlmfError: vLLM keeps its logits to itself."""
        raise LlmfError("vLLM gives no logits: leave model.infer_backend out")

    def log_likelihoods(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, bool]]:
        """Raises LlmfError: likelihoods are computed by Transformers."""
        raise LlmfError("vLLM gives no likelihoods here: leave model.infer_backend out")

    def close(self) -> None:
        """See `engine.Engine`."""
        self._engine.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _write(
        self, request: Request, limit: int, pieces: "SimpleQueue[Piece | BaseException]"
    ) -> None:
        self._active += 1
        try:
            outputs = self._engine.generate(
                {"prompt_token_ids": list(request.prompt)}, self._sampling(request, limit),
                f"request-{next(self._names)}", lora_request=self._lora,
            )  # fmt: skip
            async for output in outputs:
                pieces.put(_piece(output.outputs[0], request.decoding.logprobs))
        except asyncio.CancelledError:
            pieces.put(Piece("", (), Finish.CANCELLED))
            raise
        except Exception as error:
            pieces.put(error)
        finally:
            self._active -= 1

    def _sampling(self, request: Request, limit: int) -> Any:
        vllm = require("vllm", extra="vllm", key=KEY)
        how, texts = request.decoding, self._ends.texts
        return vllm.SamplingParams(
            temperature=how.temperature if how.do_sample else 0.0,
            top_p=how.top_p if how.do_sample else 1.0,
            top_k=how.top_k if how.do_sample else 0,
            repetition_penalty=how.repetition_penalty,
            seed=how.seed,
            stop=[*how.stop, *(texts.texts if texts else ())],
            stop_token_ids=sorted(self._ends.ids),
            max_tokens=limit,
            logprobs=how.logprobs,
            skip_special_tokens=how.skip_special_tokens,
            output_kind=require("vllm.sampling_params", extra="vllm", key=KEY).RequestOutputKind.DELTA,
        )


class VllmStream(Iterator[Piece]):
    """See `engine.Stream`."""

    def __init__(self, pieces: "SimpleQueue[Piece | BaseException]", work: "Future[None]"):
        self._pieces, self._work, self._ended = pieces, work, False
        self._cancel: Callable[[], object] = work.cancel

    def __next__(self) -> Piece:
        if self._ended:
            raise StopIteration
        piece = self._pieces.get()
        if isinstance(piece, BaseException):
            self._ended = True
            raise Closed(str(piece)) from piece
        self._ended = piece.finish is not None
        return piece

    def close(self) -> None:
        """See `engine.Stream`."""
        if not self._ended:
            self._cancel()


async def _start(cfg: Config, slots: int) -> Any:
    arguments = require("vllm.engine.arg_utils", extra="vllm", key=KEY)
    llm = require("vllm.v1.engine.async_llm", extra="vllm", key=KEY)
    lora: dict[str, Any] = {}
    if cfg.trained_adapter is not None:
        rank = _rank(hubs.adapter_folder(cfg.trained_adapter, cfg.model, ADAPTERS))
        lora = {"enable_lora": True, "max_lora_rank": next((known for known in RANKS if known >= rank), rank)}
    return llm.AsyncLLM.from_engine_args(
        arguments.AsyncEngineArgs(
            model=hubs.folder_of(cfg.model, weights=True),
            dtype=str(at_inference(cfg)).removeprefix("torch."),
            trust_remote_code=cfg.model.trust_remote_code,
            max_num_seqs=slots,
            generation_config="vllm",  # every value is stated, so that the model's own don't act
            **lora,
        )
    )


def _lora(cfg: Config) -> Any:
    """The adapter, as vLLM takes it along with each request."""
    if cfg.trained_adapter is None:
        return None
    folder = hubs.adapter_folder(cfg.trained_adapter, cfg.model, ADAPTERS)
    return require("vllm.lora.request", extra="vllm", key=KEY).LoRARequest("adapter", 1, folder)


def _rank(folder: str) -> int:
    return int((read(Path(folder) / CONFIG) or {}).get("r", 8))


def _piece(output: Any, logprobs: int | None) -> Piece:
    """A part of an answer from one of vLLM's `CompletionOutput`."""
    told = output.logprobs or [None] * len(output.token_ids)
    tokens = tuple(
        _token(token, known, logprobs) for token, known in zip(output.token_ids, told, strict=False)
    )
    return Piece(output.text, tokens, Finish(output.finish_reason) if output.finish_reason in ("stop", "length") else
                 Finish.CANCELLED if output.finish_reason else None)  # fmt: skip


def _token(token: int, known: Any, logprobs: int | None) -> Token:
    if known is None or logprobs is None:
        return Token(token)
    ranked = sorted(((other, one.logprob) for other, one in known.items()), key=lambda pair: -pair[1])
    return Token(token, known[token].logprob, tuple(ranked[:logprobs]))
