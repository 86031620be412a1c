"""Log-probabilities of the trained tokens alone: no other token goes through the output head.

The simple version is `log_softmax(model(input_ids).logits).gather(targets)`. It puts every token, prompts and
padding too, through a head as wide as the vocabulary, and holds logits of shape (batch, length, vocabulary).
"""

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.models.architecture.upcast import Float32Head
from llmf_hydra.models.network import Network
from llmf_hydra.models.target_logprobs import target_log_probs

IGNORED = -100  # a target that isn't trained


class TokenLogProbs(NamedTuple):
    """Of each position, shape (batch, length): 0 where the target is IGNORED."""

    log_probs: torch.Tensor  # log p(target | what stands before it), float32
    is_top: torch.Tensor | None  # whether the target is the likeliest token; None where the head doesn't say
    aux_loss: torch.Tensor | None = (
        None  # of a mixture of experts that was asked for its routers' numbers; a scalar
    )


class HeadOutput(NamedTuple):
    """What a model with the head installed returns; the fields that are read of TRL's FusedCausalLMOutput."""

    log_probs: torch.Tensor
    is_top1: torch.Tensor | None
    aux_loss: torch.Tensor | None


def install_head(model: Network, *, top: bool = False) -> None:
    """Have the model's forward take `fused_lm_head=True` and `shift_labels`, as `token_log_probs` calls it.

    `top` has it also say which targets are the likeliest token, for which it looks at all logits once more.

    On CUDA that is TRL's head, which works in tiles by a Triton kernel. Elsewhere TRL's puts every position
    through the head; ours picks the trained ones first. Calls without the flag are as before, so generation,
    saving and every wrapper of the model (DDP, DeepSpeed, PEFT) see the model they know.
    """
    base = cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)
    if torch.cuda.is_available():
        from trl.trainer.utils import add_fused_lm_head  # a second of imports that a CPU doesn't need

        single = isinstance(base.get_output_embeddings(), Float32Head)
        outputs = ("log_probs", "is_top1") if top else ("log_probs",)
        add_fused_lm_head(base, cast_lm_head_to_fp32=single, outputs=outputs)
    else:
        base.forward = types.MethodType(_picking(base, top), base)


def token_log_probs(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    targets: torch.Tensor,
    trained: torch.Tensor | None = None,
    **asked: bool,
) -> TokenLogProbs:
    """Log-probabilities of `targets` (batch, length), each the token after its position of `inputs["input_ids"]`.

    `trained` are the places of those that aren't IGNORED, (n,) in the flattened batch: a collator knows them before the
    batch is on a GPU, which would have to be waited for. `asked` are further outputs of the model, such as
    `output_router_logits=True`.
    """
    own: dict[str, Any] = {"shift_labels": targets, "fused_lm_head": True}
    if not torch.cuda.is_available():
        own["trained"] = trained
    output = model(**inputs, **asked, **own, use_cache=False)
    return TokenLogProbs(output.log_probs, output.is_top1, output.aux_loss)


def places(targets: torch.Tensor) -> torch.Tensor:
    """Where the targets (batch, length) aren't IGNORED: (n,), in the flattened batch."""
    return (targets.flatten() != IGNORED).nonzero().squeeze(1)


def next_tokens(labels: torch.Tensor) -> torch.Tensor:
    """Labels (batch, length), each beside its own token, as targets: each beside the token before it."""
    return torch.cat([labels[:, 1:], labels.new_full((len(labels), 1), IGNORED)], dim=1)


def _picking(model: PreTrainedModel, top: bool) -> Callable[..., Any]:
    original = model.forward

    @functools.wraps(type(model).forward)  # `generate` looks at the signature
    def forward(
        self: PreTrainedModel,
        *args: object,
        fused_lm_head: bool = False,
        shift_labels: torch.Tensor | None = None,
        trained: torch.Tensor | None = None,
        **kwargs: object,
    ) -> object:
        if not fused_lm_head:
            return original(*args, **kwargs)
        assert shift_labels is not None
        at = places(shift_labels) if trained is None else trained
        # The model itself does what comes before and after its head, such as scaling and capping the logits.
        head = cast("nn.Module", self.get_output_embeddings())
        hook = head.register_forward_pre_hook(lambda _, given: (given[0].flatten(0, 1)[at], *given[1:]))
        try:
            output = original(*args, **kwargs)
        finally:
            hook.remove()
        log_probs, is_top = target_log_probs(output.logits, shift_labels.flatten()[at], top=top)
        return HeadOutput(
            log_probs=_spread(log_probs, at, shift_labels.shape),
            is_top1=None if is_top is None else _spread(is_top, at, shift_labels.shape),
            aux_loss=output.get("aux_loss"),
        )

    return forward


def _spread(values: torch.Tensor, at: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Values (n,) at their places of a flattened batch of that shape, 0 elsewhere."""
    return values.new_zeros(shape.numel()).index_copy(0, at, values).view(shape)
