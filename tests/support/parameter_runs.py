"""What the tests of parameters share: a short training of the tiny model, here, and what came of it.

`train({key: value})` is a run with a few values changed. Equal runs are done once a session.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from io import StringIO
from multiprocessing import active_children
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.nn import functional as F
from transformers import TrainerCallback

from llmf_hydra import worker
from llmf_hydra.config import record
from llmf_hydra.config.schema import Config
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs.manifest import first_manifest

Weights = dict[str, torch.Tensor]
Changes = Mapping[str, Any]

ROWS = 8  # of the data, each longer than the one before
BASE: dict[str, Any] = {
    "model.model_name_or_path": "builtin:tiny",
    "model.compute_dtype": "float32",
    "training.max_steps": 3,
    "training.learning_rate": 0.01,
    "training.lr_scheduler_type": "constant",
    "training.max_grad_norm": 0.0,
    "training.disable_shuffling": True,
    "training.logging_steps": 1,
    "training.save_strategy": "no",
}
TESTED: set[str] = set()  # keys of the parameters that have a test in this folder


def parameter(*keys: str) -> Callable[[Any], Any]:
    """Say which parameters a test is about."""
    TESTED.update(keys)
    return lambda test: test


@dataclass(frozen=True)
class Case:
    """A parameter, what is looked at, and what is seen at each of its values: not always the same."""

    key: str
    seen: Callable[["Outcome"], Any]
    outcomes: Mapping[Any, Any]  # value -> what is seen
    context: Changes = field(default_factory=dict)  # other changes, alike for all values

    def __post_init__(self) -> None:
        TESTED.add(self.key)
        shown = {str(expected) for expected in self.outcomes.values()}
        if len(shown) < 2:
            raise ValueError(f"{self.key}: nothing differs")

    def check(self, train: "Train") -> None:
        for value, expected in self.outcomes.items():
            assert self.seen(train({**self.context, self.key: value})) == expected, f"{self.key}={value}"


@dataclass
class Outcome:
    """What came of a run; steps count from 0, and `weights[0]` is before the first."""

    out: Path
    trainer: Any
    weights: list[Weights] = field(default_factory=list)
    gradients: list[Weights] = field(default_factory=list)  # as the optimizer sees them
    rates: list[float] = field(default_factory=list)  # the learning rate of a step
    states: list[dict[str, Any]] = field(default_factory=list)  # the optimizer's, of the first trained weight
    rows: list[list[int]] = field(default_factory=list)  # rows of each forward pass of training
    processes: int = 0  # that load batches
    passes: list[bool] = field(default_factory=list)  # of a layer in step 0: are gradients recorded?
    evaluated: int = 0  # forward passes of evaluation
    sdpa: int = 0  # calls of torch's attention kernel
    dropped: float = 0.0  # share of the inputs of an adapter that are 0
    activations: torch.dtype = torch.float32
    noise: torch.Tensor | None = None  # what was added to the embedded tokens in the first pass

    @property
    def log(self) -> list[dict[str, float]]:
        return self.trainer.state.log_history

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.log if "loss" in line]

    @property
    def checkpoints(self) -> list[int]:
        return sorted(int(folder.name.split("-")[1]) for folder in self.out.glob("checkpoint-*"))

    @property
    def steps(self) -> int:
        return self.trainer.state.global_step

    def logged(self, name: str) -> list[float]:
        """The steps at which a metric was logged."""
        return [line["step"] for line in self.log if name in line]

    def changed(self) -> Weights:
        """The weights that training has changed, by name, as they are now."""
        before, after = self.weights[0], self.weights[-1]
        return {name: weight for name, weight in after.items() if not torch.equal(weight, before[name])}

    def update(self, kind: str = "", step: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Weight before, change, and gradient of a step, flat: of all weights whose name holds `kind`."""
        names = [name for name in self.gradients[step] if kind in name]
        before, after = ([self.weights[at][name] for name in names] for at in (step, step + 1))
        grads = [self.gradients[step][name] for name in names]
        flat = [torch.cat([one.flatten().double() for one in of]) for of in (before, after, grads)]
        first, last, grad = flat
        return first, last - first, grad


Train = Callable[[Changes], Outcome]
Work = Callable[[str, Changes], Path]


class Look(TrainerCallback):
    """Writes down what happens in a training."""

    def __init__(self, outcome: Outcome):
        self.outcome = outcome

    def on_train_begin(self, *_: Any, model: Any, **__: Any) -> None:
        self.outcome.weights.append(_weights(model))
        self._hook(model.get_base_model() if hasattr(model, "get_base_model") else model)

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self.outcome.rows.append([row for _, row in self.outcome.trainer.rows])

    def on_pre_optimizer_step(self, *_: Any, model: Any, optimizer: Any, **__: Any) -> None:
        found, trained = self.outcome, [(n, w) for n, w in model.named_parameters() if w.requires_grad]
        found.gradients.append({n: w.grad.clone() for n, w in trained if w.grad is not None})
        found.rates.append(optimizer.param_groups[0]["lr"])
        found.processes = max(found.processes, len(active_children()))

    def on_optimizer_step(self, *_: Any, model: Any, optimizer: Any, **__: Any) -> None:
        found, plain = self.outcome, getattr(optimizer, "optimizer", optimizer)
        found.weights.append(_weights(model))
        state = plain.state[plain.param_groups[0]["params"][0]]
        found.states.append({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()})
        found.rows.append([row for _, row in found.trainer.rows])

    def _hook(self, model: Any) -> None:
        found, decoder = self.outcome, model.model
        layer = decoder.layers[0]
        query = layer.self_attn.q_proj

        def mlp(module: Any, _: Any) -> None:
            if module.training and not found.gradients:
                found.passes.append(torch.is_grad_enabled())

        def embedded(module: Any, given: Any) -> None:
            if not module.training:
                found.evaluated += 1
            elif found.noise is None:
                plain = F.embedding(decoder.tokens, decoder.embed_tokens.weight)
                found.noise = (given[0] - plain).detach().float()

        def activations(_: Any, __: Any, output: torch.Tensor) -> None:
            found.activations = output.dtype

        def adapter(_: Any, given: Any) -> None:
            tokens = given[0][given[0].any(dim=-1)]  # the padding token is embedded as 0
            found.dropped = (tokens == 0).float().mean().item()

        decoder.embed_tokens.register_forward_pre_hook(lambda _, given: setattr(decoder, "tokens", given[0]))
        layer.mlp.register_forward_pre_hook(mlp)
        layer.register_forward_pre_hook(embedded)
        getattr(query, "base_layer", query).register_forward_hook(activations)
        if hasattr(query, "lora_A"):
            query.lora_A["default"].register_forward_pre_hook(adapter)


def config(data: Path, changes: Changes) -> Config:
    """The config of a run on a file of rows."""
    cfg = Config()
    cfg.data.dataset = str(data)
    for group in ("launch", "serve", "tracking", "model"):  # the environment has no word
        owner = getattr(cfg, group)
        for name, of in type(owner).__dataclass_fields__.items():
            if of.metadata["param"].env is not None:
                setattr(owner, name, of.metadata["param"].default)
    for key, value in {**BASE, **changes}.items():
        group, name = key.split(".")
        setattr(getattr(cfg, group), name, value)
    return cfg


def trained(cfg: Config, out: Path) -> Outcome:
    """Train as the worker does, and look."""
    from llmf_hydra.jobs import assemble

    inputs = assemble.load_inputs(cfg)
    model = assemble.load_policy(cfg, inputs.precision, inputs.tokenizer)
    found = Outcome(out, None)
    stage = import_module(f"llmf_hydra.stages.{cfg.stage.name}")
    found.trainer = stage.build_trainer(assemble.run_context(cfg, inputs, model, [Look(found)], out))
    with patch.object(F, "scaled_dot_product_attention", wraps=F.scaled_dot_product_attention) as kernel:
        with redirect_stdout(StringIO()):
            found.trainer.train()
        found.sdpa = kernel.call_count
    return found


def work(cfg: Config, out: Path) -> int:
    """Do a whole job in this process, as a worker does it; returns the exit code."""
    runs.create(out, record.dump(cfg), first_manifest(cfg, [], None))
    return worker.guarded(lambda: worker.run_job(cfg, out, resume=False), out)


def kinds(of: Outcome) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    """Types: of a weight of the base, of what it computes, and of a trained weight."""
    weights, trained = of.weights[0], of.gradients[0]
    base = next(weight for name, weight in weights.items() if "q_proj" in name and "lora" not in name)
    return base.dtype, of.activations, weights[next(iter(trained))].dtype


def last_parts(names: Any) -> set[str]:
    """The last part of the paths of modules with weights: `q_proj`, without what PEFT puts around it."""
    plain = (re.sub(r"\.(lora_\w+|default|weight|modules_to_save|base_layer)\b", "", name) for name in names)
    return {name.rpartition(".")[2] for name in plain}


def _weights(model: torch.nn.Module) -> Weights:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}
