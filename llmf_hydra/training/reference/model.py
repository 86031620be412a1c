"""The reference: the frozen model that a policy is compared with, and its log-probabilities, cached across epochs and
runs.

It is one of three: a model of its own, the policy with its adapter switched off, or the policy with the adapter
that the run started from (adapter `ref`, a frozen copy).
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.methods.adapters import START, keep_start
from llmf_hydra.models.load import load_model
from llmf_hydra.models.network import Network
from llmf_hydra.models.reference import load_reference
from llmf_hydra.training.batches import Key
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.layout.rows import PADDED, Layout, layout_of
from llmf_hydra.training.pairs import AnswerBatch, row_alone, rows_of
from llmf_hydra.training.reference.identity import store_folder
from llmf_hydra.training.reference.store import SIZE, ReferenceStore, Unit

Score = Callable[[nn.Module, AnswerBatch], torch.Tensor]  # of a network and a batch, shape (rows, n)


class Reference:
    """What a policy is compared with.

    `with reference.model() as network:` gives the network to call, without gradients and dropout.
    `reference.values(batch, score, rows)` gives what `score` makes of its outputs. Each row is computed alone: in
    another batch, padded to another length, it would differ in the last bit, and so would the run that reads it.
    """

    def __init__(
        self,
        policy: Network,
        own: Network | None = None,
        *,
        cached: bool = True,
        store: ReferenceStore | None = None,
        layout: Layout = PADDED,
    ):
        """`own` is a model of its own, None takes the policy as it was at the start; `cached=False` computes anew, in
        the batches that are asked for. `store` keeps what was computed for other runs; `layout` is that of batches
        which policy and reference both take."""
        self.policy, self.own, self.cached = policy, own, cached
        self.store, self.layout = store or ReferenceStore(None), layout
        self.computed = self.kept = 0  # inputs: forward passes made, and values of earlier runs
        self._guest: PeftModel | None = None
        self._values: dict[Key, torch.Tensor] = {}
        self._autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    def place(self, accelerator: Accelerator) -> None:
        """Bring a model of its own to the device, in the precision in which the policy computes."""
        self._autocast = lambda: accelerator.autocast()
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

    def values(self, batch: AnswerBatch, score: Score, rows: Sequence[Key] | None = None) -> torch.Tensor:
        """The scores of a batch's rows, shape (rows, n) in float32, on the device.

        Those of `rows` of the data are held in this run; other inputs are looked up by their content.
        """
        count = rows_of(batch) if rows is None else len(rows)
        if not self.cached:
            with self._scoring() as network:
                return score(network, batch).float()
        if rows is None:
            return torch.stack(
                self._of_units({at: row_alone(batch, at, count) for at in range(count)}, score)
            )
        keys = [(int(source), int(row)) for source, row in rows]
        missing = {at: key for at, key in enumerate(keys) if key not in self._values}
        found = self._of_units({at: row_alone(batch, at, count) for at in missing}, score) if missing else []
        self._values |= dict(zip(missing.values(), found, strict=True))
        return torch.stack([self._values[key] for key in keys])

    def _of_units(self, rows: Mapping[int, AnswerBatch], score: Score) -> list[torch.Tensor]:
        units = {at: unit_of(row) for at, row in rows.items()}
        absent = {unit: at for at, unit in units.items() if self.store.get(unit) is None}
        self.kept += len(set(units.values())) - len(absent)
        if absent:
            with self._scoring() as network:
                for unit, at in absent.items():
                    self.store.put(unit, self._scored(network, rows[at], score))
        return [self._on_device(self.store.get(unit)) for unit in units.values()]

    def prepare(
        self,
        rows: Mapping[Key, Unit],
        load: Callable[[Unit], AnswerBatch],
        score: Score,
        *,
        said: Callable[[int], None] = lambda computed: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Hold the scores of rows of the data; `load` gives a row's batch of one where no run has computed it.

        `said` is called with the number of rows computed so far, `stop` ends it early: the rest comes when it is asked
        for.
        """
        with self._scoring() as network:

            def compute(unit: Unit) -> np.ndarray:
                said(self.computed)
                return self._scored(network, load(unit), score)

            before, wanted = self.computed, set(rows.values())
            self.store.complete(list(dict.fromkeys(rows.values())), compute, stop)
        known = {key: self.store.get(unit) for key, unit in rows.items()}
        self._values |= {key: self._on_device(value) for key, value in known.items() if value is not None}
        there = sum(self.store.get(unit) is not None for unit in wanted)
        self.kept += there - (self.computed - before)

    @contextmanager
    def _scoring(self) -> Iterator[nn.Module]:
        """The network in the precision of the training; random numbers are as if it had never been called."""
        with undisturbed_random_state(), self.model() as network, self._autocast():
            yield network

    def _scored(self, network: nn.Module, row: AnswerBatch, score: Score) -> np.ndarray:
        device = next(self.policy.parameters()).device
        moved = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in row.items()
        }
        self.computed += 1
        return score(network, cast("AnswerBatch", moved)).detach().float().cpu().numpy()[0]

    def _on_device(self, values: np.ndarray | None) -> torch.Tensor:
        assert values is not None  # they were computed
        return torch.from_numpy(np.array(values)).to(next(self.policy.parameters()).device)

    def holds(self, row: Key) -> bool:
        """Whether the scores of a row of the data are in memory."""
        return row in self._values

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
    layout = layout_of(context.cfg, context.model, own)
    at_start = own is None and goes_on(context)
    if at_start and not context.cfg.starts_on_residual:  # there it is kept in any stage
        keep_start(cast("PeftModel", context.model))
    streaming = context.cfg.data.streaming
    folder = None if streaming else store_folder(context, own, layout, at_start=at_start)
    return Reference(context.model, own, cached=not streaming, store=ReferenceStore(folder), layout=layout)


def reference_model(context: RunContext) -> PreTrainedModel | None:
    """A model of its own where the config names one or every weight is trained; None takes the policy's start."""
    cfg, policy, dtype = context.cfg, context.model, context.precision.weights
    rlhf = cfg.rlhf
    if rlhf.ref_model or rlhf.ref_model_adapters or rlhf.ref_model_quantization_bit:
        return load_reference(rlhf, cfg.network, dtype, policy.config.vocab_size)
    if isinstance(policy, PeftModel):
        return None
    copy = load_model(cfg.network, dtype)
    copy.load_state_dict(policy.state_dict())
    return copy


def goes_on(context: RunContext) -> bool:
    """Whether the trained adapter changes the model from the start; a fresh one changes nothing yet, but PiSSA's."""
    return context.cfg.trained_adapter is not None or context.cfg.starts_on_residual


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


def unit_of(row: AnswerBatch) -> Unit:
    """Digest of the inputs of one row."""
    digest = hashlib.blake2b(digest_size=SIZE)
    for name, value in sorted(row.items()):  # where lines lie end to end, their positions tell their borders
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {tuple(value.shape)} ".encode())
            digest.update(value.cpu().numpy().tobytes())
    return digest.digest()


@contextmanager
def undisturbed_random_state() -> Iterator[None]:
    """Whatever is drawn within, the random numbers that follow are the same: Python's, NumPy's and torch's."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
