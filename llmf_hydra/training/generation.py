"""Rollouts: a model answers prompts, in batches, with its keys and values cached."""

import bisect
import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import cast

import torch
import transformers
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.models.architecture.mixture_of_depths import is_converted
from llmf_hydra.models.network import Network


@dataclass(frozen=True)
class Rollouts:
    """Prompts, padded on the left, and answers, on the right: every answer begins in the same column.

    Whatever belongs to neither is the padding token.
    """

    ids: torch.Tensor  # (rows, prompt + answer)
    attention: torch.Tensor  # (rows, prompt + answer): 0 on padding
    mask: torch.Tensor  # (rows, answer): True on the tokens of the answer, its end included
    ended: torch.Tensor  # (rows,): whether the answer ended before its limit

    @property
    def width(self) -> int:
        """Columns of the answers."""
        return self.mask.shape[1]

    @property
    def answers(self) -> torch.Tensor:
        """The tokens of the answers, (rows, answer)."""
        return self.ids[:, self.ids.shape[1] - self.width :]

    def rows(self, start: int, stop: int) -> "Rollouts":
        """Some of the rows."""
        return Rollouts(**{f.name: getattr(self, f.name)[start:stop] for f in fields(self)})


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled."""

    config: transformers.GenerationConfig
    pad_id: int
    ends: tuple[int, ...]  # tokens that end an answer
    stop_texts: "StopTexts | None"  # texts of several tokens that end an answer
    max_new_tokens: int  # 0: max_length decides
    max_length: int  # of prompt and answer together

    @property
    def temperature(self) -> float:
        """What the logits are divided by to give the policy that acts; 1 where nothing is sampled."""
        return float(self.config.temperature or 1.0) if self.config.do_sample else 1.0

    def limits(self, lengths: Sequence[int]) -> list[int]:
        """Most tokens of the answer to each prompt, given the prompts' lengths; at least 1."""
        if self.max_new_tokens:
            return [self.max_new_tokens] * len(lengths)
        return [max(1, self.max_length - length) for length in lengths]


@dataclass(frozen=True)
class StopTexts:
    """Texts that end an answer and that the tokenizer writes as several tokens.

    They are looked for in the decoded text: which tokens they become depends on the text before them.
    """

    tokenizer: PreTrainedTokenizerBase
    texts: tuple[str, ...]

    @property
    def window(self) -> int:
        """The number of last tokens that can hold a stop text: a token has at least one byte."""
        return max(len(text.encode()) for text in self.texts) + 1

    def found(self, ids: Sequence[int]) -> bool:
        """Whether one of the texts stands in the decoded tokens."""
        decoded = str(self.tokenizer.decode(list(ids), skip_special_tokens=False))
        return any(text in decoded for text in self.texts)

    def end(self, ids: Sequence[int]) -> int | None:
        """The position of the token with which the first stop text is complete; None where there is none."""
        if not self.found(ids):
            return None
        return bisect.bisect_left(range(1, len(ids) + 1), True, key=lambda count: self.found(ids[:count]))


class StopAtTexts(StoppingCriteria):
    """Ends the lines of a generation in which a stop text is complete; `start` is the answers' first column."""

    def __init__(self, stops: StopTexts, start: int):
        self._stops, self._start = stops, start

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.BoolTensor:
        """Which lines are complete, (lines,); `input_ids` are all tokens so far."""
        first = max(self._start, input_ids.shape[1] - self._stops.window)
        done = [self._stops.found(line) for line in input_ids[:, first:].tolist()]
        return torch.tensor(done, device=input_ids.device)  # pyright: ignore[reportReturnType]  # it is one


def sampling(
    generation: GenerationConfig,
    model: Network,
    tokenizer: PreTrainedTokenizerBase,
    stops: Sequence[str] = (),
) -> Sampling:
    """The generation group as `generate` takes it; every value is stated, so that the model's don't act.

    An answer ends with an end token of the tokenizer or the model, or with one of the template's `stops`.
    """
    ends = model.generation_config.eos_token_id  # pyright: ignore
    known = ends if isinstance(ends, list) else [ends]
    written = {stop: tokenizer.encode(stop, add_special_tokens=False) for stop in stops}
    single = [ids[0] for ids in written.values() if len(ids) == 1]
    several = tuple(stop for stop, ids in written.items() if len(ids) > 1)
    every = tuple(dict.fromkeys(end for end in [tokenizer.eos_token_id, *known, *single] if end is not None))
    random = {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": generation.top_k}
    config = transformers.GenerationConfig(
        do_sample=generation.do_sample,
        **(random if generation.do_sample else {}),
        repetition_penalty=generation.repetition_penalty,
        num_beams=1,
        eos_token_id=list(every),
        pad_token_id=tokenizer.pad_token_id,
        use_cache=not is_converted(model.config),
    )
    pad_id = int(tokenizer.pad_token_id)  # pyright: ignore  # load_tokenizer has seen to it
    stop_texts = StopTexts(tokenizer, several) if several else None
    return Sampling(config, pad_id, every, stop_texts, generation.max_new_tokens, generation.max_length)


@torch.no_grad()
def roll_out(policy: Network, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Rollouts:
    """Answers to prompts, given as token ids. The policy must be in evaluation mode, or it caches nothing."""
    device = next(policy.parameters()).device
    width = max(map(len, prompts))
    ids = torch.tensor([[sampling.pad_id] * (width - len(row)) + list(row) for row in prompts], device=device)
    attention = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device)
    limits = torch.tensor(sampling.limits([len(row) for row in prompts]), device=device)
    config = copy.copy(sampling.config)
    config.max_new_tokens = int(limits.max())
    criteria = [StopAtTexts(sampling.stop_texts, width)] if sampling.stop_texts else []
    made = policy.generate(  # pyright: ignore
        input_ids=ids,
        attention_mask=attention,
        generation_config=config,
        stopping_criteria=StoppingCriteriaList(criteria),
    )
    whole = cast("torch.Tensor", made)  # it is asked for no more than the tokens
    answers = whole[:, width:]
    mask, ended = answer_mask(answers, limits, sampling.ends, sampling.stop_texts)
    clean = torch.cat([ids, answers.masked_fill(~mask, sampling.pad_id)], dim=1)
    return Rollouts(clean, torch.cat([attention, mask.long()], dim=1), mask, ended)


def answer_mask(
    answers: torch.Tensor,
    limits: torch.Tensor,
    ends: Sequence[int],
    stop_texts: StopTexts | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of the tokens (rows, answer) belong to each answer, and which answers ended within their limit.

    The first token of `ends`, or the one that completes a stop text, is the last of an answer. The padding after it
    may be that same token, so it is told by its place.
    """
    is_end = torch.isin(answers, torch.tensor(list(ends), device=answers.device))
    for row, ids in enumerate(answers.tolist() if stop_texts else []):
        at = stop_texts.end(ids) if stop_texts else None
        if at is not None:
            is_end[row, at] = True
    place = torch.arange(answers.shape[1], device=answers.device)
    mask = (is_end.long().cumsum(dim=1) - is_end.long() == 0) & (place < limits.unsqueeze(1))
    return mask, (is_end & mask).any(dim=1)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of its own: what is sampled within neither sees nor moves those of the training."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
