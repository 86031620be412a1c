"""A policy with a value head on its trunk: one pass gives logits and values of the answers' tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from llmf_hydra.models import adapters

FILE = "value_head.safetensors"


class PolicyWithValue(nn.Module):
    """A causal language model, and a linear head in float32 from its last hidden states to a number.

    The head starts at 0: until something is known of the returns, no state is worth more than another.
    """

    accepts_loss_kwargs = True  # Transformers' trainer leaves the division by the accumulation to the loss
    _keys_to_ignore_on_save = None  # it looks here when it loads a model with tied weights

    def __init__(self, policy: PreTrainedModel | PeftModel):
        super().__init__()
        self.policy = policy
        device = next(policy.parameters()).device
        self.value_head = nn.Linear(policy.config.get_text_config().hidden_size, 1, device=device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(
        self, inputs: Mapping[str, torch.Tensor], at: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, vocabulary) and values (n,) at the places `at` (n,) of the flattened `inputs`; both float32.

        Only those places go through the output head, and the value head sees what goes into that one.
        """
        seen: list[torch.Tensor] = []
        logits = self.logits(self.policy, inputs, at, seen)
        with torch.autocast(at.device.type, enabled=False):
            values = self.value_head(seen[0].float()).squeeze(-1)
        return logits, values

    @staticmethod
    def logits(
        model: nn.Module,
        inputs: Mapping[str, torch.Tensor],
        at: torch.Tensor,
        seen: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The logits alone, of any causal language model; `seen` is given the states that go into its head."""
        head: Any = cast("PreTrainedModel", model).get_output_embeddings()

        def pick(_: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            states = given[0].flatten(0, 1)[at]
            if seen is not None:
                seen.append(states)
            return states, *given[1:]

        hook = head.register_forward_pre_hook(pick)
        try:
            output = model(**inputs, use_cache=False)
        finally:
            hook.remove()
        return output.logits.float()

    @property
    def config(self) -> PretrainedConfig:
        return self.policy.config

    @property
    def generation_config(self) -> Any:
        return self.policy.generation_config

    def get_input_embeddings(self) -> nn.Module:
        return self.policy.get_input_embeddings()

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """As the trainer asks for it; over frozen embeddings checkpoints need an input with a gradient."""
        if isinstance(self.policy, PeftModel):
            self.policy.enable_input_require_grads()
        self.policy.activation_checkpointing_enable(**options)

    def save_pretrained(self, folder: str | Path, adapter: str = "default") -> None:
        """Save the policy as plain Transformers or PEFT loads it, and the value head beside it."""
        if isinstance(self.policy, PeftModel):
            adapters.save(self.policy, folder, adapter)
        else:
            self.policy.save_pretrained(str(folder))
        save_file(self.value_head.state_dict(), Path(folder) / FILE)

    def load_value_head(self, folder: str | Path) -> None:
        """Read the value head that `save_pretrained` wrote. Raises OSError where there is none."""
        self.value_head.load_state_dict(load_file(Path(folder) / FILE))


def positions(attention: torch.Tensor) -> torch.Tensor:
    """Positions (rows, length) that begin at 0 with each row's first token, wherever its padding ends."""
    return (attention.long().cumsum(dim=-1) - 1).clamp(min=0)
