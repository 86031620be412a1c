"""What TRL generates, as our rewards read it."""

from collections.abc import Sequence

import torch

from llmf_hydra.training.generation import Rollouts


def rollouts(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], ends: Sequence[int], pad_id: int
) -> Rollouts:
    """Prompts and answers as token ids, padded to tensors on the CPU; `ends` are the tokens that end an answer."""
    left, right = max(map(len, prompts)), max(map(len, answers))
    ids = torch.full((len(prompts), left + right), pad_id)
    attention = torch.zeros(len(prompts), left + right, dtype=torch.long)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        place = slice(left - len(prompt), left + len(answer))
        ids[row, place] = torch.tensor([*prompt, *answer])
        attention[row, place] = 1
    ended = torch.tensor([bool(answer) and answer[-1] in ends for answer in answers])
    return Rollouts(ids, attention, attention[:, left:].bool(), ended)


def moved(rollouts: Rollouts, device: torch.device) -> Rollouts:
    """The same on a device."""
    return Rollouts(*(tensor.to(device) for tensor in vars(rollouts).values()))
