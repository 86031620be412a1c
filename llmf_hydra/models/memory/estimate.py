"""What a run will take in memory, from a model without weights (on the meta device)."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from llmf_hydra.config.choices import METHODS
from llmf_hydra.config.schema import Config, value_at
from llmf_hydra.errors import Problem
from llmf_hydra.models.activations.apply import keeping_all
from llmf_hydra.models.activations.layers import checkpointed_layers
from llmf_hydra.models.architecture.apply import attention
from llmf_hydra.models.architecture.placement import check_names
from llmf_hydra.models.load import another, load_config, load_sized_config, text_factory, told_of
from llmf_hydra.models.memory.budget import Chosen, checkpointed, spread
from llmf_hydra.models.memory.step import (
    Batch,
    Batches,
    Growth,
    Pass,
    cache_size,
    evaluation_pass,
    generation_pass,
    optimizer_buffers,
    training_growth,
)
from llmf_hydra.models.network import Network
from llmf_hydra.models.precision import Precision
from llmf_hydra.models.quantization import weights as quantized
from llmf_hydra.runs.manifest import available_memory, resident_memory, total_memory

log = logging.getLogger(__name__)
GIB = 2**30
# Bytes of weights below which activations are estimated by a formula: counting takes longer than such a run's steps.
SMALL = 2**25
FAR = 4  # times the memory there is
OF_TRAINER = 64 * 2**20  # bytes of code and objects that come when the training begins, as measured


@dataclass(frozen=True)
class Estimate:
    """Parameter counts, and bytes by what takes them at the peak of a step."""

    parameters: int
    trained: int
    process: int  # Python and its libraries, before any weight is there
    weights: int  # of all models that are loaded
    gradients: int
    optimizer: int  # its state
    activations: int  # what the passes take beside, or the optimizer's own buffers where these are larger
    reading: int  # of files, beside process and weights, while the weights are read from them in another type
    available: int
    checkpointed: int  # layers that are computed again in the backward pass: the first ones

    @property
    def total(self) -> int:
        """The peak: of a step, or of reading the weights where they are changed on the way."""
        return max(self.step, self.process + self.weights + self.reading)

    @property
    def step(self) -> int:
        """The peak of a step."""
        return sum(getattr(self, name) for name in PARTS)

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "total": self.total}

    def line(self) -> str:
        """The estimate in one line, in GiB."""
        parts = ", ".join(f"{name} {getattr(self, name) / GIB:.2f}" for name in PARTS)
        share = f"{self.trained:,} of {self.parameters:,} weights are trained ({self.trained / self.parameters:.2%})"
        again = f"; layers checkpointed: {self.checkpointed}" if self.checkpointed else ""
        begun = f" while weights are read, {self.step / GIB:.2f} in a step" if self.total > self.step else ""
        about = f"{self.total / GIB:.2f} GiB{begun} ({parts}) of {self.available / GIB:.1f}"
        return f"model: {share}; memory about {about}{again}"


PARTS = ("process", "weights", "gradients", "optimizer", "activations")


def far_too_large(cfg: Config, found: Estimate) -> Problem | None:
    """The refusal of a run that needs many times the memory there is, which no error of the estimate explains."""
    if found.total <= FAR * found.available:
        return None
    parts = {name: getattr(found, name) for name in PARTS}
    largest = max(parts, key=lambda name: parts[name])
    key = "model.model_name_or_path"
    if largest == "activations":
        key = "training.per_device_train_batch_size"
    elif cfg.method.name == "lora" and found.trained > found.parameters:
        key = "method.lora_rank"
    what = f"the run needs about {found.total / GIB:,.0f} GiB of memory, and there are {found.available / GIB:.1f}"
    remedies = {
        "training.per_device_train_batch_size": "lower it or data.cutoff_len",
        "method.lora_rank": "lower it",
    }
    return Problem(key, value_at(cfg, key), what, remedies.get(key, "choose a smaller model or method=lora"))


class Built(NamedTuple):
    """An optimizer of a model on the meta device, and what it keeps."""

    optimizer: Optimizer
    trained: int  # weights that are stepped sooner or later
    gradients: int  # bytes
    state: int  # bytes


def estimate(
    cfg: Config,
    precision: Precision,
    trainable: Callable[[PreTrainedModel], Network],
    batches: Callable[[Network], Batches],
    optimizer: Callable[[nn.Module], Built],
) -> Estimate:
    """Estimate a run. `trainable` applies the method to a bare model; `batches` gives the largest of them;
    `optimizer` builds it."""
    config = load_sized_config(cfg.network)
    config.num_labels = 1  # read by a head of scores alone
    if cfg.stage.scores and config.get_text_config().pad_token_id is None:
        config.get_text_config().pad_token_id = 0
    factory = AutoModelForSequenceClassification if cfg.stage.scores else text_factory(config)
    stored = config.get_text_config().dtype or config.dtype
    with torch.device("meta"):
        bare = factory.from_config(
            config,
            dtype=precision.weights,
            trust_remote_code=cfg.model.trust_remote_code,
            attn_implementation=attention(cfg.model),
        )
        check_names(bare, cfg.model.device_map)
        parameters = bare.num_parameters()
        saved = _bytes(bare) - quantized.size(bare, cfg.quantization, precision.weights)
        model = trainable(bare)
    built = optimizer(model)
    largest = batches(model)
    weights = _bytes(model) - saved + _reference(cfg, model, precision) + _reward(cfg, precision)
    step = _Step(cfg, model, built, largest, precision)
    chosen = step.chosen(_free() - weights - built.gradients - built.state)
    return Estimate(
        parameters=parameters,
        trained=built.trained,
        process=_process(),
        weights=weights,
        gradients=built.gradients,
        optimizer=built.state,
        activations=chosen.activations,
        reading=_reading(cfg, stored, parameters, precision),
        available=_available(),
        checkpointed=chosen.layers,
    )


def _reference(cfg: Config, policy: nn.Module, precision: Precision) -> int:
    """Bytes of a reference model of its own; none where the policy without its adapter is the reference."""
    rlhf = cfg.rlhf
    if not cfg.uses_reference:
        return 0
    bits = rlhf.ref_model_quantization_bit
    if rlhf.ref_model or rlhf.ref_model_adapters or bits:
        return _other("rlhf.ref_model", rlhf.ref_model or cfg.model.model_name_or_path, bits, cfg, precision)
    return 0 if METHODS[cfg.method.name].adapters else _bytes(policy)


def _reward(cfg: Config, precision: Precision) -> int:
    """Bytes of the reward models; an adapter on the policy's base takes next to nothing."""
    rlhf = cfg.rlhf
    if cfg.stage.info.rollouts and rlhf.rewards:
        models = [spec for spec in rlhf.listed if spec.kind == "model"]
        return sum(_listed(spec.argument, cfg, precision) for spec in models)
    if cfg.stage.name != "ppo" or rlhf.reward_model is None or rlhf.reward_model_type != "full":
        return 0
    return _other("rlhf.reward_model", rlhf.reward_model, rlhf.reward_model_quantization_bit, cfg, precision)


def _listed(folder: str, cfg: Config, precision: Precision) -> int:
    """Bytes of a model of the list of rewards. An adapter where the policy has none sits on a copy of the base."""
    if not (Path(folder).expanduser() / "adapter_config.json").exists():
        return _other("rlhf.rewards", folder, None, cfg, precision)
    if METHODS[cfg.method.name].adapters:
        return 0
    return _other("rlhf.rewards", cfg.model.model_name_or_path, None, cfg, precision)


def _other(key: str, name: str | None, bits: int | None, cfg: Config, precision: Precision) -> int:
    """Bytes of a model beside the policy. Raises Refused, under the key that names it."""
    with told_of(key) if name != cfg.model.model_name_or_path else nullcontext():
        config = load_config(another(cfg.model, name))
    with torch.device("meta"):
        model = AutoModel.from_config(
            config, dtype=precision.weights, trust_remote_code=cfg.model.trust_remote_code
        )
    return quantized.size(model, quantized.bits_alone(bits), precision.weights)


def _reading(cfg: Config, stored: object, parameters: int, precision: Precision) -> int:
    """Bytes of the model's files, of the type `stored`, that are in memory beside the weights made of them: none where
    the weights are the files' own, or where they go to a GPU."""
    same = stored == precision.weights and cfg.quantization.quantization_bit is None
    if same or not isinstance(stored, torch.dtype) or torch.cuda.is_available():
        return 0
    return 0 if cfg.model.train_from_scratch else parameters * stored.itemsize


def _bytes(model: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


@dataclass(frozen=True)
class _Step:
    """The largest batches of a run, and what they go through."""

    cfg: Config
    model: Network
    built: Built
    largest: Batches
    precision: Precision

    def chosen(self, free: int) -> Chosen:
        """The layers that are checkpointed, and what a step takes beside weights, gradients and the optimizer's state.

        `free` are the bytes that are left for it. Raises Refused where training.activation_memory is too small.
        """
        asked, all_or_none = (
            self.cfg.training.activation_memory,
            not self.cfg.model.disable_gradient_checkpointing,
        )
        if asked is None:
            growth, other = self._grown(checkpoints=all_or_none)
            layers = len(checkpointed_layers(self.model)) if all_or_none else 0
            return Chosen(layers, max(self._with(growth.peak, other), self._with_holes(all_or_none)))
        plain, other = self._grown(checkpoints=False)
        whole, _ = self._grown(checkpoints=True)
        chosen = checkpointed(plain, whole, asked, free)
        return chosen._replace(activations=self._with(chosen.activations, other))

    def _with_holes(self, checkpoints: bool) -> int:
        """Bytes that the heap of a CPU grows to. What is recomputed leaves holes between what is kept, which no later
        activation fits in, but the gradients of large weights do."""
        if torch.cuda.is_available():
            return 0
        with keeping_all():
            growth, _ = self._grown(checkpoints=checkpoints)
        return growth.peak - self.built.gradients

    def _with(self, passes: int, other: tuple[int, int]) -> int:
        evaluated, buffers = other
        passes = max(passes, evaluated)
        return passes + buffers if self._how(False).layerwise else max(passes, buffers)

    def _how(self, checkpoints: bool) -> Pass:
        return Pass(
            torch.bfloat16 if self.precision.autocast else None,
            scores=self.cfg.stage.scores,
            checkpoints=checkpoints,
            layerwise=self.cfg.optimizer.layerwise_key is not None,
        )

    def _grown(self, *, checkpoints: bool) -> tuple[Growth, tuple[int, int]]:
        """A training pass; beside it the bytes of evaluation and generation, and the buffers of the optimizer."""
        how, largest = self._how(checkpoints), self.largest
        if _bytes(self.model) < SMALL:
            return self._by_formula(how)
        try:
            growth = spread(
                training_growth(self.model, largest.training, how), len(checkpointed_layers(self.model))
            )
            other = 0
            if largest.evaluation is not None:
                other = evaluation_pass(self.model, largest.evaluation, how)
            if largest.generation is not None:
                other = max(other, generation_pass(self.model, largest.generation, how))
            return growth, (other, optimizer_buffers(self.built.optimizer))
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            log.debug("the memory of a step is estimated by a formula: %s", error)
            return self._by_formula(how)

    def _by_formula(self, how: Pass) -> tuple[Growth, tuple[int, int]]:
        config, generation = self.model.config.get_text_config(), self.largest.generation
        growth = _formula(config, self.largest.training, how, self.precision)
        if generation is None:
            return growth, (0, 0)
        prompts = Batch(generation.lines, generation.prompt, generation.lines)
        passed = _formula(config, prompts, how, self.precision).peak
        return growth, (cache_size(self.model, generation, how) + passed, 0)


def _formula(config: PretrainedConfig, batch: Batch, how: Pass, precision: Precision) -> Growth:
    """For models that look at numbers, such as where tokens go: activations as of Korthikanti et al. 2022
    (arXiv:2205.05198) for attention that keeps no score matrix, for gated MLPs whose elementwise results are computed
    again, plus the logits of the trained tokens and their gradient."""
    tokens = batch.lines * batch.length
    size = (how.autocast or precision.weights).itemsize
    hidden = config.hidden_size
    inner = config.to_dict().get("intermediate_size") or 4 * hidden  # which GPT-2 and its kin don't name
    layer = (
        tokens * (6 * hidden + 2 * inner) * size
    )  # the stream twice, query, key, value, output; gate and up
    logits, layers = 2 * batch.trained * config.vocab_size * size, config.num_hidden_layers
    if not how.checkpoints:
        return Growth(logits, layer, 0, layers)
    return Growth(logits + layer, tokens * hidden * size, 0, layers)


def _process() -> int:
    """Bytes that this process takes on the device that trains, before there are weights."""
    if torch.cuda.is_available():
        return 0
    return resident_memory() + OF_TRAINER


def _free() -> int:
    """Bytes that the device that trains has free now."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return available_memory() - OF_TRAINER


def _available() -> int:
    """Bytes of the device that trains."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return total_memory()
