"""Mixtures of experts: the weight of their load-balancing loss (Fedus et al. 2021, arXiv:2101.03961, eq. 4-6)."""

from typing import Any

from transformers import PretrainedConfig

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Problem, Refused

FIELD = "router_aux_loss_coef"


def weigh_balance(config: PretrainedConfig, model: ModelConfig) -> None:
    """Note the weight in the model's config, which saves it. Raises Refused for a model without such a loss."""
    if model.moe_aux_loss_coef is None:
        return
    text: Any = config.get_text_config()
    if not hasattr(text, FIELD):
        what = f"a {text.model_type} model has no loss that balances experts"
        raise Refused([Problem("model.moe_aux_loss_coef", model.moe_aux_loss_coef, what, "leave it out")])
    setattr(text, FIELD, model.moe_aux_loss_coef)
