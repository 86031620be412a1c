"""The engine on Transformers: one thread that answers what waits together, a token of each answer at a time.

Answers join and leave between two tokens (continuous batching). Transformers has a loop of its own for that
(`generate_batch`), which knows neither a seed nor a repetition penalty of each request, nor stop texts.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import torch

from llmf_hydra.models.architecture.mixture_of_depths import is_converted
from llmf_hydra.serve import beams
from llmf_hydra.serve.batch import Batch, padded
from llmf_hydra.serve.constraint import Constraints
from llmf_hydra.serve.engine import Answer, Finish, Piece, Request, Token
from llmf_hydra.serve.loading import Loaded
from llmf_hydra.serve.sampling import Chooser, choose
from llmf_hydra.serve.speaking import Closed, Speaking, ends, room, whole
from llmf_hydra.serve.text import Text
from llmf_hydra.training.determinism import use_threads

SLOTS = 8  # answers at a time, where nobody says how many


@dataclass
class Job:
    """A request on its way."""

    request: Request
    limit: int  # maximum tokens of the answer
    text: Text
    chooser: Chooser
    tokens: list[Token] = field(default_factory=list)
    pieces: "SimpleQueue[Piece | BaseException]" = field(default_factory=SimpleQueue)
    cancelled: bool = False

    def deliver(self, token: Token) -> Finish | None:
        """Hand a token out; returns why the answer ends with it, if it does."""
        self.tokens.append(token)
        piece, finish = self.text.add(token.id, self.limit)
        self.pieces.put(Piece(piece, (token,), finish))
        return finish


class TransformersEngine(Speaking):
    """See `engine.Engine`."""

    def __init__(self, loaded: Loaded, *, slots: int = SLOTS, use_cache: bool = True):
        """`slots` answers are written at the same time, the others wait."""
        self._loaded, self._slots = loaded, slots
        self._constraints = Constraints(loaded.tokenizer, loaded.network.config.get_text_config().vocab_size)
        self._cached = use_cache and not is_converted(loaded.network.config)  # pyright: ignore
        settings: Any = None if loaded.scores else loaded.network.generation_config
        self._ends = ends(loaded, settings.eos_token_id if settings is not None else None)
        self._forward = threading.Lock()  # one forward pass at a time
        self._change = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._closed = False
        self._batch, self._running = self._new_batch(), list[Job]()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def loaded(self) -> Loaded:
        return self._loaded

    @property
    def constraints(self) -> Constraints:
        """See `engine.Engine`."""
        return self._constraints

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        """See `engine.Engine`. Raises TooLong for a prompt without room for an answer, before anything is generated."""
        jobs = [self._job(request) for request in requests]
        self._submit(jobs)
        try:
            return [whole(Growing(job, lambda: None)) for job in jobs]
        except BaseException:
            self._cancel(jobs)
            raise

    def stream(self, request: Request) -> "Growing":
        """See `engine.Engine`. Raises TooLong at once."""
        job = self._job(request)
        self._submit([job])
        return Growing(job, lambda: self._cancel([job]))

    @torch.inference_mode()
    def score(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        """See `engine.Engine`."""
        loaded = self._loaded
        width = max(map(len, prompts))
        rows = [list(row) + [loaded.pad_id] * (width - len(row)) for row in prompts]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in prompts]
        with self._forward:
            given = loaded.network(
                input_ids=torch.tensor(rows, device=loaded.device),
                attention_mask=torch.tensor(mask, device=loaded.device),
                use_cache=False,
            )
        return given.logits.squeeze(-1).float().tolist()

    def next_logits(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """See `engine.Engine`."""
        with self._forward:
            logits = Batch(self._loaded.network, self._loaded.pad_id, cached=False).join(prompts)
        return logits.float().cpu()

    @torch.inference_mode()
    def log_likelihoods(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, bool]]:
        """See `engine.Engine`. A prompt holds at least one token."""
        loaded = self._loaded
        whole = [[*prompt, *more] for prompt, more in zip(prompts, continuations, strict=True)]
        ids, mask = padded(whole, loaded.pad_id, loaded.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        with self._forward:
            logits = loaded.network(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).logits
        found = []
        for row, more in enumerate(continuations):
            scores = logits[row, -len(more) - 1 : -1].float().log_softmax(-1)
            wanted = torch.tensor(more, device=scores.device)
            total = scores.gather(1, wanted.unsqueeze(1)).sum()
            found.append((float(total), bool((scores.argmax(-1) == wanted).all())))
        return found

    def close(self) -> None:
        """See `engine.Engine`."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()

    @property
    def load(self) -> tuple[int, int]:
        """See `engine.Engine`."""
        return len(self._running), len(self._waiting)

    def _job(self, request: Request) -> Job:
        limit = room(self._loaded, request)
        text = Text(self._loaded.tokenizer, request.decoding, self._ends)
        return Job(request, limit, text, Chooser.of(request))

    def _submit(self, jobs: Sequence[Job]) -> None:
        with self._change:
            if self._closed:
                raise Closed("the engine is closed")
            self._waiting.extend(jobs)
            self._change.notify_all()

    def _cancel(self, jobs: Sequence[Job]) -> None:
        with self._change:
            for job in jobs:
                job.cancelled = True
                with suppress(ValueError):  # it is running, or over
                    self._waiting.remove(job)
                    job.pieces.put(Piece("", (), Finish.CANCELLED))

    def _new_batch(self) -> Batch:
        return Batch(self._loaded.network, self._loaded.pad_id, cached=self._cached)

    def _work(self) -> None:
        use_threads()
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._waiting or self._running)
                if self._closed:
                    self._fail(Closed("the engine was closed"), [*self._running, *self._waiting])
                    return
                joining = self._joining()
            try:
                with self._forward:
                    self._advance(joining)
            except Exception as error:  # out of memory, for one: whoever waits for it must hear of it
                self._fail(error, [*self._running, *(job for job in joining if job not in self._running)])
                self._batch, self._running = self._new_batch(), []

    def _joining(self) -> list[Job]:
        """Take from those who wait as many as may join now: several alike in beam search, or up to all free places."""
        first = next(iter(self._waiting), None)
        if first is None or (self._running and not self._batch.takes_more):
            return []
        searches = first.request.decoding.num_beams > 1
        joining: list[Job] = []
        while self._waiting and len(joining) < self._slots - (0 if searches else len(self._running)):
            following = self._waiting[0].request.decoding
            if (following.num_beams > 1) != searches or (searches and following != first.request.decoding):
                break
            joining.append(self._waiting.popleft())
        return joining

    def _advance(self, joining: list[Job]) -> None:
        """Write the first token of those who join, or an answer by beam search, then one of each running answer."""
        if joining and joining[0].request.decoding.num_beams > 1:
            self._search(joining)
        elif joining:
            self._join(joining)
        if self._running:
            logits = self._batch.step([job.tokens[-1].id for job in self._running])
            self._deliver(choose(logits, [job.chooser for job in self._running], self._batch.rows))

    def _join(self, joining: list[Job]) -> None:
        prompts = [job.request.prompt for job in joining]
        logits = self._batch.join(prompts)
        before = len(self._running)
        self._running += joining
        tokens = choose(logits, [job.chooser for job in joining], prompts)
        self._deliver(tokens, before)

    def _deliver(self, tokens: Sequence[Token], first: int = 0) -> None:
        """Hand tokens to the running answers from the number `first` on; those that end leave."""
        staying = list(range(first))
        for number, token in enumerate(tokens, first):
            job = self._running[number]
            if job.cancelled:
                job.pieces.put(Piece("", (), Finish.CANCELLED))
            elif job.deliver(token) is None:
                staying.append(number)
        self._batch.keep(staying)
        self._running = [self._running[number] for number in staying]

    def _search(self, jobs: list[Job]) -> None:
        prompts = [job.request.prompt for job in jobs]
        found = beams.search(
            self._loaded, prompts, jobs[0].request.decoding, max(job.limit for job in jobs), self._ends,
            use_cache=self._cached, cancelled=lambda: all(job.cancelled for job in jobs),
        )  # fmt: skip
        for job, ids in zip(jobs, found, strict=True):
            for token in ids:
                if job.deliver(Token(token)) is not None:
                    break
            else:
                job.pieces.put(Piece("", (), Finish.CANCELLED))

    @staticmethod
    def _fail(error: BaseException, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.pieces.put(error)


class Growing(Iterator[Piece]):
    """An answer as it grows; see `engine.Stream`. One that is dropped is cancelled."""

    def __init__(self, job: Job, cancel: Callable[[], None]):
        self._job, self._cancel, self._ended = job, cancel, False

    def __next__(self) -> Piece:
        if self._ended:
            raise StopIteration
        piece = self._job.pieces.get()
        if isinstance(piece, BaseException):
            self._ended = True
            raise piece
        self._ended = piece.finish is not None
        return piece

    def close(self) -> None:
        """See `engine.Stream`. A thread that waits for the next piece gets a last one."""
        if not self._ended:
            self._cancel()

    def __del__(self) -> None:
        self.close()
