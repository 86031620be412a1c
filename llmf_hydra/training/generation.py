"""Rollouts: a model answers prompts, in batches, with its keys and values cached."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerBase

from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.models.network import Network


@dataclass(frozen=True)
class Rollouts:
    """Prompts, padded on the left, and answers, on the right: every answer begins in the same column."""

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


def sampling(generation: GenerationConfig, model: Network, tokenizer: PreTrainedTokenizerBase) -> Sampling:
    """The generation group as `generate` takes it; every value is stated, so that the model's don't act."""
    ends = model.generation_config.eos_token_id  # pyright: ignore
    known = ends if isinstance(ends, list) else [ends]
    every = tuple(dict.fromkeys(end for end in [tokenizer.eos_token_id, *known] if end is not None))
    random = {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": generation.top_k}
    config = transformers.GenerationConfig(
        do_sample=generation.do_sample,
        **(random if generation.do_sample else {}),
        repetition_penalty=generation.repetition_penalty,
        num_beams=1,
        eos_token_id=list(every),
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    pad_id = int(tokenizer.pad_token_id)  # pyright: ignore  # load_tokenizer has seen to it
    return Sampling(config, pad_id, every, generation.max_new_tokens, generation.max_length)


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
    whole: Any = policy.generate(input_ids=ids, attention_mask=attention, generation_config=config)  # pyright: ignore
    mask, ended = answer_mask(whole[:, width:], limits, sampling.ends)
    return Rollouts(whole, torch.cat([attention, mask.long()], dim=1), mask, ended)


def answer_mask(
    answers: torch.Tensor, limits: torch.Tensor, ends: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of the tokens (rows, answer) belong to each answer, and which answers ended within their limit.

    The first token of `ends` is the last of an answer. The padding after it may be that same token, so it is
    told by its place.
    """
    is_end = torch.isin(answers, torch.tensor(list(ends), device=answers.device))
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
