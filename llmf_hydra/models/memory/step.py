"""What a training step takes beside weights, gradients and the optimizer's state: the step is made without numbers, on
the meta device, and what lives at its peak is counted."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from peft import PeftModel
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from llmf_hydra.models.architecture import padding_free
from llmf_hydra.models.memory.live import AsOnTheDevice, Checkpointed, LiveMemory
from llmf_hydra.models.network import Network
from llmf_hydra.models.target_logprobs import target_log_probs

COMPUTED = (2, 3)  # layers, of many that are equal


@dataclass(frozen=True)
class Batch:
    """The largest batch of a run: its lines, tokens per line with padding, and the tokens whose logits are made.

    Of rows end to end in one line, also the borders (`padding_free.Rows`)."""

    lines: int
    length: int
    trained: int
    lengths: tuple[int, ...] = ()
    prefixes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Generation:
    """Answers that are generated at once, each to a prompt of the longest length, in tokens."""

    lines: int
    prompt: int
    answer: int


class Batches(NamedTuple):
    """The largest of a run, of each kind that it has."""

    training: Batch
    evaluation: Batch | None = None
    generation: Generation | None = None


@dataclass(frozen=True)
class Pass:
    """How a batch goes through the network."""

    autocast: (
        torch.dtype | None
    )  # the type in which matrices are multiplied, where it isn't that of the weights
    scores: bool  # whether the head gives scores, not tokens
    checkpoints: bool  # whether layers are computed again in the backward pass
    layerwise: bool  # whether each gradient is freed at once


@dataclass(frozen=True)
class Growth:
    """What a pass takes by the number of its layers, in bytes."""

    fixed: int  # at the start of the backward pass, with no layer at all
    layer: int  # which each layer adds to it
    rest: int  # later in the backward pass, whatever their number
    layers: int

    @property
    def peak(self) -> int:
        """The most that is taken at one time."""
        return max(self.fixed + self.layers * self.layer, self.rest)


def training_pass(model: Network, batch: Batch, how: Pass) -> int:
    """Bytes that a forward and backward pass takes beside the weights' gradients; see `training_growth`."""
    return training_growth(model, batch, how).peak


def training_growth(model: Network, batch: Batch, how: Pass) -> Growth:
    """What a forward and backward pass takes beside the weights' gradients. The model, on the meta device, is left with
    checkpoints switched as `how` says.

    Of many equal layers a few are computed: until the backward pass has left the topmost one, what lives grows by the
    same amount with each, and afterwards it doesn't depend on their number. That activations are freed while gradients
    come saves nothing, since memory that is free in parts stays with the process.

    Raises RuntimeError and its like where the model needs numbers.
    """
    model.train()
    _switch_checkpoints(model, how.checkpoints)
    layers = equal_layers(model)
    if layers is None or len(layers) <= COMPUTED[-1]:
        return Growth(max(_peaks(model, None, batch, how)), 0, 0, 0)
    fewer, more = COMPUTED
    (first, _), (top, rest) = (_peaks(model, count, batch, how) for count in COMPUTED)
    layer = (top - first) // (more - fewer)
    return Growth(top - more * layer, layer, rest, len(layers))


def evaluation_pass(model: Network, batch: Batch, how: Pass) -> int:
    """Bytes that a forward pass without gradients takes; raises as `training_pass` does."""
    model.eval()
    layers = equal_layers(model)
    count = None if layers is None else min(len(layers), COMPUTED[0])
    memory = LiveMemory(_there(model))
    with _cut(model, count), torch.no_grad(), memory, AsOnTheDevice(how.autocast):
        _loss(model, batch, scores=how.scores)
    return memory.peak


def generation_pass(model: Network, generation: Generation, how: Pass) -> int:
    """Bytes that answers take while they are generated: keys and values of all tokens, and the pass over the prompts,
    after which there are the logits of one token a line. Raises as `training_pass` does."""
    lines = generation.lines
    return cache_size(model, generation, how) + evaluation_pass(
        model, Batch(lines, generation.prompt, lines), how
    )


def cache_size(model: Network, generation: Generation, how: Pass) -> int:
    """Bytes of the keys and values of all layers, and once more of one: a longer one is made of it for each token."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = how.autocast or next(w.dtype for w in model.parameters() if w.is_floating_point())
    tokens = generation.lines * (generation.prompt + generation.answer)
    return 2 * tokens * heads * size * kept.itemsize * (config.num_hidden_layers + 1)


def equal_layers(model: nn.Module) -> nn.ModuleList | None:
    """The hidden layers, where each computes the same and trains the same; None where they differ."""
    config = next(module for module in model.modules() if isinstance(module, PreTrainedModel)).config
    text = config.get_text_config()
    if len(set(text.to_dict().get("layer_types") or ())) > 1:
        return None
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == text.num_hidden_layers:
            kinds = {_kind(layer) for layer in module}
            trained = any(weight.requires_grad for weight in module[0].parameters())
            return module if len(kinds) == 1 and trained else None
    return None


def _kind(layer: nn.Module) -> tuple[object, ...]:
    weights = [
        (name, weight.shape, weight.dtype, weight.requires_grad) for name, weight in layer.named_parameters()
    ]
    return type(layer), "forward" in vars(layer), *weights


def _peaks(model: Network, count: int | None, batch: Batch, how: Pass) -> tuple[int, int]:
    """Bytes beside the gradients, until the backward pass has left the topmost layer, and then; with so many layers."""
    layers = equal_layers(model)
    memory, found = LiveMemory(_there(model)), []
    with _cut(model, count):
        below = set() if layers is None or len(layers) < 2 else set(layers[-2].parameters())

        def take(weight: torch.Tensor) -> None:
            if weight in below and not found:
                found.append(memory.peak)
                memory.peak = memory.now
            memory.forget(cast("torch.Tensor", weight.grad))
            if how.layerwise:
                weight.grad = None

        trained = [weight for weight in model.parameters() if weight.requires_grad]
        with _hooked(trained, take), memory, AsOnTheDevice(how.autocast):
            _loss(model, batch, scores=how.scores).backward()
    return found[0] if found else memory.peak, memory.peak


@contextmanager
def _cut(model: nn.Module, count: int | None) -> Iterator[None]:
    """The model with its first hidden layers alone."""
    layers = equal_layers(model)
    if layers is None or count is None:
        yield
        return
    whole = dict(layers._modules)
    for name in list(whole)[count:]:
        del layers._modules[name]
    try:
        yield
    finally:
        layers._modules.update(whole)


@contextmanager
def _hooked(weights: list[nn.Parameter], take: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Call `take` with each weight whose gradient is whole; afterwards there are none."""
    hooks = [weight.register_post_accumulate_grad_hook(take) for weight in weights]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for weight in weights:
            weight.grad = None


def optimizer_buffers(optimizer: Optimizer) -> int:
    """Bytes that a step of an optimizer of weights on the meta device takes and frees again."""
    # Weights are stepped one after another: one of each shape tells what all take.
    weights = {
        (number, weight.shape, weight.dtype): weight
        for number, group in enumerate(optimizer.param_groups)
        for weight in group["params"]
        if weight.requires_grad
    }.values()
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    optimizer.step()  # makes the state
    for weight in weights:
        weight.grad = torch.empty_like(weight) if weight.requires_grad else None
    kept = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    memory = LiveMemory([*weights, *(weight.grad for weight in weights if weight.grad is not None), *kept])
    with memory:
        optimizer.step()
    return memory.peak


def _there(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _switch_checkpoints(model: Network, checkpoints: bool) -> None:
    base = cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)
    if not base.supports_gradient_checkpointing:
        return

    def compute(function: Callable[..., Any], *inputs: Any) -> Any:
        marker = torch.zeros(1, device=base.device, requires_grad=True)
        return Checkpointed.apply(function, marker, *inputs)

    base._set_gradient_checkpointing(enable=checkpoints, gradient_checkpointing_func=compute)


def _loss(model: Network, batch: Batch, *, scores: bool) -> torch.Tensor:
    """The loss of a batch, a scalar. Only the trained tokens go through the head of tokens."""
    base = cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)
    shape, device = (batch.lines, batch.length), next(model.parameters()).device
    # A whole mask keeps models from looking at numbers to find out which they need.
    dtype = next(weight.dtype for weight in model.parameters() if weight.is_floating_point())
    mask = (
        torch.ones(shape, dtype=torch.long, device=device)
        if batch.lengths
        else torch.zeros(batch.lines, 1, batch.length, batch.length, dtype=dtype, device=device)
    )
    inputs = {
        "input_ids": torch.zeros(shape, dtype=torch.long, device=device),
        "position_ids": torch.zeros(shape, dtype=torch.long, device=device),
        "attention_mask": mask,
    }
    if scores:
        with _apart(batch):
            return model(**inputs, use_cache=False).logits.float().sum()
    head = cast("nn.Module", base.get_output_embeddings())

    def pick(_: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        tokens = given[0].flatten(0, 1)
        times = -(-batch.trained // len(tokens))  # a head may take more than logits for all tokens
        return tokens.repeat(times, 1)[: batch.trained].clone(), *given[1:]

    hook = head.register_forward_pre_hook(pick)
    try:
        with _apart(batch):
            logits = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    targets = torch.zeros(len(logits), dtype=torch.long, device=device)
    return -target_log_probs(logits, targets).log_probs.sum()


def _apart(batch: Batch) -> AbstractContextManager[None]:
    if not batch.lengths:
        return nullcontext()
    return padding_free.end_to_end(padding_free.Rows(batch.lengths, batch.prefixes), every_layer=False)
