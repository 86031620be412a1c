"""`reward_model_type=lora`: a reward adapter and its head on the base that is in memory already."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import load_peft_weights, set_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.value_head import positions
from llmf_hydra.training.generation import Rollouts
from llmf_hydra.training.reference import frozen

NAME = "reward"
HEADS = ("score", "classifier")  # what sequence classifiers call their head


class AdapterReward:
    """Scores with an adapter of `stage=rm method=lora` (PEFT's task SEQ_CLS), switched on for the while."""

    def __init__(self, host: PreTrainedModel | PeftModel, folder: str, pad_id: int):
        """`host` is a causal language model, the adapter's base. Raises Refused where they don't fit."""
        self._pad_id = pad_id
        try:
            config = PeftConfig.from_pretrained(folder)
            weights = load_peft_weights(folder, device="cpu")
        except (OSError, ValueError) as error:
            raise _refused(folder, str(error).strip().splitlines()[0]) from error
        head = _head(weights, folder)
        self.head = nn.Linear(head.shape[1], 1, bias=False, device=next(host.parameters()).device)
        self.head.weight.data.copy_(head)
        self.head.requires_grad_(False)
        config.modules_to_save = [m for m in config.modules_to_save or [] if m not in HEADS] or None  # pyright: ignore
        config.task_type, config.inference_mode = "CAUSAL_LM", True
        self.host = _with_adapter(host, config)
        found = set_peft_model_state_dict(self.host, weights, adapter_name=NAME)
        if found.unexpected_keys:
            raise _refused(folder, f"doesn't fit the model: it has weights for {found.unexpected_keys[0]}")

    @torch.no_grad()
    def __call__(self, rollouts: Rollouts) -> torch.Tensor:
        trunk = self.host.get_base_model().get_decoder()  # pyright: ignore
        with frozen(self.host), self._switched_on():
            hidden = trunk(
                input_ids=rollouts.ids,
                attention_mask=rollouts.attention,
                position_ids=positions(rollouts.attention),
                use_cache=False,
            ).last_hidden_state
        last = last_token(rollouts.ids, self._pad_id)
        return self.head(hidden[torch.arange(len(last), device=last.device), last].float()).squeeze(-1)

    @contextmanager
    def _switched_on(self) -> Iterator[None]:
        active = str(self.host.active_adapter)
        self.host.set_adapter(NAME, inference_mode=True)
        try:
            yield
        finally:
            self.host.set_adapter(active, inference_mode=active == NAME)


def last_token(ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Where each row's score is read, (rows,): its last token that isn't the padding token.

    That is how Transformers' sequence classifiers do it, and so how the head was trained: where the padding
    token ends the answers too, the score stands before the end.
    """
    place = torch.arange(ids.shape[1], device=ids.device)
    return (place * (ids != pad_id)).argmax(dim=-1)


def _head(weights: dict[str, torch.Tensor], folder: str) -> torch.Tensor:
    """Take the head's weight, (1, hidden), out of an adapter's weights."""
    names = [name for name in weights if name.rpartition(".weight")[0].rpartition(".")[2] in HEADS]
    if len(names) != 1:
        raise _refused(folder, "holds no head that scores")
    head = weights.pop(names[0])
    if head.shape[0] != 1:
        raise _refused(folder, f"its head gives {head.shape[0]} numbers where a reward is one")
    return head


def _with_adapter(host: PreTrainedModel | PeftModel, config: PeftConfig) -> PeftModel:
    if not isinstance(host, PeftModel):
        return get_peft_model(host, config, adapter_name=NAME)  # pyright: ignore
    active = str(host.active_adapter)
    host.add_adapter(NAME, config)
    host.set_adapter(active)
    return host


def _refused(folder: str, what: str) -> Refused:
    remedy = "name a folder that stage=rm method=lora has written"
    return Refused([Problem("rlhf.reward_model", folder, what, remedy)])
