"""The reference: the frozen model that a policy is compared with, and its log-probabilities, cached across epochs.

It is one of three: a model of its own, the policy with its adapter switched off, or the policy with the adapter
that the run started from (adapter `ref`, a frozen copy).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from accelerate import Accelerator
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.models.load import load_model
from llmf_hydra.models.network import Network
from llmf_hydra.models.reference import load_reference
from llmf_hydra.training.batches import Key
from llmf_hydra.training.context import RunContext

START = "ref"  # the adapter that the run started from
Compute = Callable[[nn.Module], torch.Tensor]


class Reference:
    """What a policy is compared with.

    `with reference.model() as network:` gives the network to call, without gradients and dropout.
    `reference.values(rows, compute)` gives what `compute` makes of it, once per row of the data.
    """

    def __init__(self, policy: Network, own: Network | None = None, *, cached: bool = True):
        """`own` is a model of its own, None takes the policy as it was at the start; `cached=False` computes anew."""
        self.policy, self.own, self.cached = policy, own, cached
        self._guest: PeftModel | None = None
        self._values: dict[Key, torch.Tensor] = {}

    def place(self, accelerator: Accelerator) -> None:
        """Bring a model of its own to the device, in the precision in which the policy computes."""
        if self.own is not None:
            for weight in self.own.parameters():
                weight.requires_grad_(False)
            self.own = cast("Network", accelerator.prepare_model(self.own, evaluation_mode=True))

    def host(self, adapted: PeftModel) -> None:
        """Say that the model of its own carries an adapter of another use now: it is off while the reference acts."""
        self.own = self._guest = adapted

    @contextmanager
    def model(self) -> Iterator[nn.Module]:
        """The network whose outputs are the reference's, in evaluation mode and without gradients."""
        network, switched = self.policy if self.own is None else self.own, nullcontext()
        if self.own is None:
            switched = as_reference(self.policy)
        elif self._guest is not None:
            switched = self._guest.disable_adapter()
        with frozen(network), switched:
            yield network

    def values(self, rows: Sequence[Key], compute: Compute) -> torch.Tensor:
        """Values of some rows, shape (rows, n) in float32; `compute` gets the network if one of them isn't cached.

        A cached value stays: a row in another batch, padded to another length, would differ in the last bit, and a
        resumed run must not. The values stay on the device, so that nothing waits for it.
        """
        keys = [(int(source), int(row)) for source, row in rows]
        if not self.cached or not all(key in self._values for key in keys):
            with self.model() as network:
                fresh = compute(network).detach().float()
            if not self.cached:
                return fresh
            for key, value in zip(keys, fresh, strict=True):
                self._values.setdefault(key, value)
        return torch.stack([self._values[key] for key in keys])

    def __len__(self) -> int:
        """The number of cached rows."""
        return len(self._values)

    def state_dict(self) -> dict[str, object]:
        """The cache as tensors on the CPU: `rows` (n, 2) and `values` (n, width)."""
        if not self._values:
            return {}
        values = torch.stack(list(self._values.values())).cpu()
        return {"rows": torch.tensor(list(self._values)), "values": values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the cache by a saved one."""
        device = next(self.policy.parameters()).device
        rows, values = state.get("rows", torch.zeros(0, 2)), state.get("values", torch.zeros(0, 1))
        keys = [(int(source), int(row)) for source, row in rows.tolist()]
        self._values = dict(zip(keys, values.to(device), strict=True))


def build_reference(context: RunContext) -> Reference:
    """The reference of a run. Rows that are streamed are too many to cache."""
    own = reference_model(context)
    if own is None and goes_on(context):
        keep_start(context.model)
    return Reference(context.model, own, cached=not context.cfg.data.streaming)


def reference_model(context: RunContext) -> PreTrainedModel | None:
    """A model of its own where the config names one or every weight is trained; None takes the policy's start."""
    cfg, policy, dtype = context.cfg, context.model, context.precision.weights
    rlhf = cfg.rlhf
    if rlhf.ref_model or rlhf.ref_model_adapters or rlhf.ref_model_quantization_bit:
        return load_reference(rlhf, cfg.model, dtype, policy.config.vocab_size)
    if isinstance(policy, PeftModel):
        return None
    copy = load_model(cfg.model, dtype)
    copy.load_state_dict(policy.state_dict())
    return copy


def goes_on(context: RunContext) -> bool:
    """Whether the trained adapter changes the model from the start; a fresh one changes nothing yet."""
    return context.cfg.trained_adapter is not None or context.cfg.method.pissa_init


@torch.no_grad()
def keep_start(policy: Network) -> None:
    """Keep a frozen copy of the adapter that the run goes on from, as the adapter `ref`."""
    if not isinstance(policy, PeftModel):
        raise TypeError("a policy without adapters has no starting adapter")
    active = str(policy.active_adapter)
    policy.add_adapter(START, policy.peft_config[active])
    saved = get_peft_model_state_dict(policy, adapter_name=active)
    start = {name: weight.clone() for name, weight in saved.items()}
    set_peft_model_state_dict(policy, start, adapter_name=START)
    policy.set_adapter(active)


@contextmanager
def as_reference(policy: Network) -> Iterator[None]:
    """The policy as it was at the start: its adapter switched off, or the starting one switched on."""
    if not isinstance(policy, PeftModel):
        raise TypeError("a policy without adapters is no reference; it needs a model of its own")
    if START not in policy.peft_config:
        with policy.disable_adapter():
            yield
        return
    active = str(policy.active_adapter)
    policy.set_adapter(START, inference_mode=True)
    try:
        yield
    finally:
        policy.set_adapter(active)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No gradients and no dropout."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
