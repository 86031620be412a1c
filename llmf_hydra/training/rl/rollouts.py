"""The first step of online training: the policy answers the prompts of some rows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from llmf_hydra.models.network import Network
from llmf_hydra.training.generation import Rollouts, Sampling, roll_out, seeded
from llmf_hydra.training.reference.model import frozen
from llmf_hydra.training.rewards.protocol import Row

Autocast = Callable[..., AbstractContextManager]


@dataclass
class Sampler:
    """A policy that answers rows with a `prompt_ids` column."""

    policy: Network
    sampling: Sampling
    autocast: Autocast = nullcontext

    def __call__(self, rows: Sequence[Row], seed: int) -> Rollouts:
        """An answer per row. The same seed, weights and rows give the same answers."""
        device = next(self.policy.parameters()).device
        prompts = [row["prompt_ids"] for row in rows]
        with frozen(self.policy), self.autocast(), seeded(seed, device):
            return roll_out(self.policy, prompts, self.sampling)
