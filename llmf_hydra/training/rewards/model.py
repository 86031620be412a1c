"""`reward_model_type=full`: a sequence classifier with weights of its own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import torch
from transformers import PreTrainedTokenizerBase

from llmf_hydra.checks.scorer import model_scores
from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.adapters import put_on
from llmf_hydra.models.load import another, load_scorer, told_of
from llmf_hydra.models.network import Network
from llmf_hydra.models.quantization.weights import bits_alone
from llmf_hydra.models.value_head import positions
from llmf_hydra.training.generation import Rollouts
from llmf_hydra.training.reference.model import frozen
from llmf_hydra.training.rewards.protocol import Row

KEY = "rlhf.reward_model"


class ModelReward:
    """Scores with a model that knows the policy's tokens and gives one number."""

    def __init__(self, model: Network, name: str):
        self.model, self.name = model.requires_grad_(False), f"{KEY}={name}"  # pyright: ignore[reportAttributeAccessIssue]

    @classmethod
    def load(cls, cfg: Config, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase) -> Self:
        """The model that `reward_model` names, quantized or with its adapters merged. Raises Refused."""
        rlhf = cfg.rlhf
        named = replace(another(cfg.model, rlhf.reward_model), upcast_lmhead_output=False)
        bits = rlhf.reward_model_quantization_bit
        with told_of(KEY):
            model = load_scorer(named, dtype, tokenizer, bits_alone(bits))
        adapters = names(rlhf.reward_model_adapters)
        if not adapters and not model_scores(model.config.to_dict()):
            raise _refused(cfg, "its head doesn't score", "name a model that stage=rm has written")
        if model.config.get_text_config().vocab_size < len(tokenizer):
            raise _refused(
                cfg,
                f"knows fewer tokens than the trained model's tokenizer ({len(tokenizer)})",
                "serve it, and set rlhf.reward_model_type=api",
            )
        whole = put_on(model, adapters, "rlhf.reward_model_adapters", cfg.model, merged=bits is None)
        return cls(whole, str(rlhf.reward_model))

    @classmethod
    def named(cls, cfg: Config, name: str, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase) -> Self:
        """A model of the list of rewards, as it is saved. Raises Refused."""
        rlhf = replace(
            cfg.rlhf, reward_model=name, reward_model_adapters=None, reward_model_quantization_bit=None
        )
        return cls.load(replace(cfg, rlhf=rlhf), dtype, tokenizer)

    @torch.no_grad()
    def __call__(self, rollouts: Rollouts, rows: Sequence[Row]) -> torch.Tensor:
        if self.model.device != rollouts.ids.device:
            self.model.to(rollouts.ids.device)  # pyright: ignore
        with frozen(self.model):
            logits = self.model(
                input_ids=rollouts.ids,
                attention_mask=rollouts.attention,
                position_ids=positions(rollouts.attention),
                use_cache=False,
            ).logits
        return logits.squeeze(-1).float()


def _refused(cfg: Config, what: str, remedy: str) -> Refused:
    return Refused([Problem(KEY, cfg.rlhf.reward_model, what, remedy)])
