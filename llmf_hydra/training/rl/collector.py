"""The steps in their order: rollout, score, advantage."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from llmf_hydra.training.rewards.protocol import Reward, Row, score
from llmf_hydra.training.rl.buffer import Buffer
from llmf_hydra.training.rl.estimator import Estimator
from llmf_hydra.training.rl.experience import Experience, Judge, Tensors
from llmf_hydra.training.rl.rollouts import Autocast, Sampler


@dataclass
class Collector:
    """Fills buffers: the policy answers, the reward scores, the estimator weighs."""

    sampler: Sampler
    reward: Reward
    judge: Judge
    estimator: Estimator
    tokenizer: PreTrainedTokenizerBase

    def use(self, autocast: Autocast) -> None:
        """Compute in the precision of the training."""
        self.sampler.autocast = self.judge.autocast = autocast

    def experience(self, rows: Sequence[Row], seed: int) -> Experience:
        """Answers to some rows, scored and judged. Raises TrainingFailed for a score that is not finite."""
        rollouts = self.sampler(rows, seed)
        with self.judge.autocast():
            scores = score(self.reward, rollouts, rows, self.tokenizer)
        tensors = {"ids": rollouts.ids, "attention": rollouts.attention, "mask": rollouts.mask}
        keys = [(int(row["source"]), int(row["row"])) for row in rows]
        return Experience(tensors | self.judge(rollouts), scores, rollouts.ended, keys)

    def buffer(
        self, batches: Sequence[Sequence[Row]], seeds: Sequence[int]
    ) -> tuple[Buffer, Tensors, Experience]:
        """Several rollout batches as one buffer, with its metrics as values of rows."""
        parts = [self.experience(rows, seed) for rows, seed in zip(batches, seeds, strict=True)]
        experience = Experience.join(parts, self.sampler.sampling.pad_id)
        return *self.estimator(experience), experience
