"""What an engine is asked and what it answers; `Engine` is what the jobs know of it.

A prompt is a list of token ids: `Engine.prompt` writes a dialogue, `Engine.tokenize` a text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

import torch

from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.rows import Message
from llmf_hydra.serve.constraint import Constraint, Constraints
from llmf_hydra.serve.loading import Model

Tools = list[dict[str, Any]]


class Finish(Enum):
    """Why an answer ended."""

    STOP = "stop"  # the model ended its turn, or wrote one of the stop texts
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Decoding:
    """How an answer is decoded; the names are those of the group `generation`."""

    do_sample: bool = True
    temperature: float = 0.95
    top_p: float = 0.7
    top_k: int = 50
    num_beams: int = 1
    max_length: int = 1024  # of prompt and answer together; acts where max_new_tokens is 0
    max_new_tokens: int = 1024
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    skip_special_tokens: bool = True
    seed: int | None = None  # of this answer's random numbers; None draws one
    stop: tuple[str, ...] = ()  # texts that end the answer and are no part of it
    logprobs: int | None = None  # alternatives reported for each token; 0 reports the token's own alone

    @classmethod
    def of(cls, generation: GenerationConfig, **changed: Any) -> "Decoding":
        """As the group says, with some of it changed."""
        whole = cls(
            do_sample=generation.do_sample,
            temperature=generation.temperature,
            top_p=generation.top_p,
            top_k=generation.top_k,
            num_beams=generation.num_beams,
            max_length=generation.max_length,
            max_new_tokens=generation.max_new_tokens,
            repetition_penalty=generation.repetition_penalty,
            length_penalty=generation.length_penalty,
            skip_special_tokens=generation.skip_special_tokens,
        )
        return replace(whole, **changed)

    def limit(self, prompt: int) -> int:
        """Maximum tokens of the answer to a prompt of so many tokens; at least 1."""
        return self.max_new_tokens or max(1, self.max_length - prompt)


@dataclass(frozen=True)
class Request:
    """One answer that is wanted."""

    prompt: Sequence[int]  # token ids
    decoding: Decoding = field(default_factory=Decoding)
    constraint: Constraint | None = None  # of `Engine.constraints`; beam search follows none


@dataclass(frozen=True)
class Token:
    """A generated token with the natural logarithms of probabilities before temperature and filters."""

    id: int
    logprob: float | None = None  # where `Decoding.logprobs` asks for it
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens, at most `Decoding.logprobs` of them


@dataclass(frozen=True)
class Piece:
    """A part of an answer as it grows; the last piece has its `finish`."""

    text: str
    tokens: tuple[Token, ...] = ()
    finish: Finish | None = None


@dataclass(frozen=True)
class Answer:
    """A whole answer: its text without the end of the turn, and all generated tokens, the end included."""

    text: str
    tokens: tuple[Token, ...]
    finish: Finish

    @property
    def ids(self) -> list[int]:
        """The generated token ids."""
        return [token.id for token in self.tokens]


class Stream(Iterator[Piece], Protocol):
    """The pieces of an answer."""

    def close(self) -> None:
        """Cancel the answer, which frees its place; nothing where it has ended."""
        ...


class Engine(Protocol):
    """A loaded model. Every method may be called from several threads; what waits together is batched."""

    @property
    def loaded(self) -> Model: ...

    @property
    def constraints(self) -> Constraints | None:
        """Makes what a request may hold its answer to; None where none is followed."""
        ...

    def prompt(self, messages: Sequence[Message], tools: Tools | None = None) -> list[int]:
        """Token ids of a dialogue up to where the answer begins. Raises BadRow for what the template refuses."""
        ...

    def dialogue(self, messages: Sequence[Message], tools: Tools | None = None) -> list[int]:
        """Token ids of a dialogue up to the end of its last answer, which is what is scored. Raises BadRow."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a plain text, with the special tokens that the tokenizer puts around one."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        """An answer to each request, in their order."""
        ...

    def stream(self, request: Request) -> Stream:
        """One answer as it grows."""
        ...

    def score(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        """The score of each sequence, by a model that scores (stage=rm)."""
        ...

    def next_logits(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits of the token after each prompt, (prompts, vocabulary) in float32 on the CPU."""
        ...

    def log_likelihoods(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[tuple[float, bool]]:
        """Of each continuation the log-probability after its prompt, and whether greedy decoding would write it."""
        ...

    @property
    def load(self) -> tuple[int, int]:
        """How many answers are written now, and how many wait."""
        ...

    def close(self) -> None:
        """End the engine; what waits is cancelled."""
        ...
