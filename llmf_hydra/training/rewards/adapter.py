"""`reward_model_type=lora`: a reward adapter and its head on the base that is in memory already."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import SAFETENSORS_WEIGHTS_NAME, load_peft_weights, set_peft_model_state_dict
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.checks.scorer import HEAD, OTHER_HEADS
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.network import Network
from llmf_hydra.models.scorer import last_tokens, take_head
from llmf_hydra.models.value_head import positions
from llmf_hydra.training.generation import Rollouts
from llmf_hydra.training.reference.model import frozen
from llmf_hydra.training.rewards.protocol import Row

NAME = "reward"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")


class AdapterReward:
    """Scores with an adapter of `stage=rm method=lora` (PEFT's task SEQ_CLS), switched on for the while."""

    def __init__(self, host: Network, folder: str, pad_id: int):
        """`host` is a causal language model, the adapter's base. Raises Refused where they don't fit."""
        self.name, self._pad_id = f"rlhf.reward_model={folder}", pad_id
        try:
            config = PeftConfig.from_pretrained(folder)
            weights = load_peft_weights(folder, device="cpu")
            head = take_head(weights)
        except (OSError, ValueError) as error:
            raise _refused(folder, str(error).strip().splitlines()[0]) from error
        self.head = nn.Linear(head.shape[1], 1, bias=False)
        self.head.weight.data.copy_(head)
        self.head.requires_grad_(False)
        own: Any = config  # PEFT's base class doesn't declare the fields of LoRA's
        own.modules_to_save = [m for m in own.modules_to_save or [] if m not in (HEAD, *OTHER_HEADS)] or None
        config.task_type, config.inference_mode = "CAUSAL_LM", True
        self.host = _with_adapter(host, config)
        found = set_peft_model_state_dict(self.host, weights, adapter_name=NAME)
        if found.unexpected_keys:
            raise _refused(folder, f"doesn't fit the model: it has weights for {found.unexpected_keys[0]}")

    @torch.no_grad()
    def __call__(self, rollouts: Rollouts, rows: Sequence[Row]) -> torch.Tensor:
        trunk = self.host.get_base_model().get_decoder()  # pyright: ignore
        with frozen(self.host), self._switched_on():
            hidden = trunk(
                input_ids=rollouts.ids,
                attention_mask=rollouts.attention,
                position_ids=positions(rollouts.attention),
                use_cache=False,
            ).last_hidden_state
        last = last_tokens(rollouts.ids, self._pad_id)
        states = hidden[torch.arange(len(last), device=last.device), last].float()
        return self.head.to(states.device)(states).squeeze(-1)

    @contextmanager
    def _switched_on(self) -> Iterator[None]:
        active = str(self.host.active_adapter)
        self.host.set_adapter(NAME, inference_mode=True)
        try:
            yield
        finally:
            self.host.set_adapter(active, inference_mode=active == NAME)


def check_vocabulary(folder: str, base: PreTrainedModel) -> None:
    """Raise Refused for an adapter that brings embeddings of another number of tokens than the base, which may lie on
    the meta device, has."""
    file = Path(folder).expanduser() / SAFETENSORS_WEIGHTS_NAME
    if not file.is_file():
        return
    count = cast("torch.Tensor", base.get_input_embeddings().weight).shape[0]
    with safe_open(file, framework="pt") as stored:
        for name in stored.keys():  # noqa: SIM118
            brought = stored.get_slice(name).get_shape()[0]
            if name.endswith(EMBEDDINGS) and brought != count:
                what = f"was trained with {brought} tokens, and the model has {count}"
                remedy = "set model.new_special_tokens and model.resize_vocab as then, or rlhf.reward_model_type=api"
                raise Refused([Problem("rlhf.reward_model", folder, what, remedy)])


def _with_adapter(host: Network, config: PeftConfig) -> PeftModel:
    if not isinstance(host, PeftModel):
        return get_peft_model(host, config, adapter_name=NAME)  # pyright: ignore
    active = str(host.active_adapter)
    host.add_adapter(NAME, config)
    host.set_adapter(active)
    return host


def _refused(folder: str, what: str) -> Refused:
    remedy = "name a folder that stage=rm method=lora has written"
    return Refused([Problem("rlhf.reward_model", folder, what, remedy)])
