"""`stage=grpo`: several answers to each prompt, made likelier or less likely by their reward beside the others'.

Shao et al. 2024 (arXiv:2402.03300) and its kin, by TRL's own trainers: GRPOTrainer, or RLOOTrainer where
`rlhf.loss_type=rloo` (Ahmadian et al. 2024, arXiv:2402.14740). What is ours around them is in `training/rl/groups/`.
"""

from trl import GRPOTrainer, RLOOTrainer

from llmf_hydra.training.context import RunContext
from llmf_hydra.training.rl.groups.arguments import grpo_arguments, rloo_arguments
from llmf_hydra.training.rl.groups.trainer import GroupTrainer


class Grpo(GroupTrainer, GRPOTrainer):
    """TRL's GRPOTrainer between our seams."""


class Rloo(GroupTrainer, RLOOTrainer):
    """TRL's RLOOTrainer between our seams."""


def build_trainer(context: RunContext) -> GroupTrainer:
    """The trainer of the loss that the config names. Raises Refused."""
    if context.cfg.rlhf.loss_type == "rloo":
        return Rloo(context, rloo_arguments(context))
    return Grpo(context, grpo_arguments(context))
