"""What a run will take in memory, from a model without weights (on the meta device)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from llmf_hydra.config.choices import METHODS
from llmf_hydra.config.schema import Config, value_at
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.architecture.placement import check_names
from llmf_hydra.models.load import another, load_config, load_sized_config, text_factory
from llmf_hydra.models.precision import Precision
from llmf_hydra.models.quantization import weights as quantized
from llmf_hydra.runs.manifest import total_memory

GIB = 2**30
FAR = 4  # times the memory there is


@dataclass(frozen=True)
class Estimate:
    """Parameter counts, and bytes by what takes them."""

    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    available: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "total": self.total}

    def line(self) -> str:
        """The estimate in one line, in GiB."""
        parts = ", ".join(
            f"{name} {getattr(self, name) / GIB:.2f}"
            for name in ("weights", "gradients", "optimizer", "activations")
        )
        share = f"{self.trained:,} of {self.parameters:,} weights are trained ({self.trained / self.parameters:.2%})"
        return (
            f"model: {share}; memory about {self.total / GIB:.2f} GiB ({parts}) of {self.available / GIB:.1f}"
        )


def far_too_large(cfg: Config, found: Estimate) -> Problem | None:
    """The refusal of a run that needs many times the memory there is, which no error of the estimate explains."""
    if found.total <= FAR * found.available:
        return None
    parts = {name: getattr(found, name) for name in ("weights", "gradients", "optimizer", "activations")}
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


def estimate(
    cfg: Config,
    tokens: int,
    precision: Precision,
    trainable: Callable[[PreTrainedModel], nn.Module],
    optimizer: Callable[[nn.Module], tuple[int, int, int]],
) -> Estimate:
    """Estimate a run whose forward pass holds `tokens` tokens; `trainable` applies the method to a bare model, and
    `optimizer` gives the weights that are stepped, and the bytes of the gradients and of the state that it keeps.

    Activations follow Korthikanti et al. 2022 (arXiv:2205.05198) for attention that keeps no score matrix,
    widened for gated MLPs, plus the logits of the trained tokens in float32.
    """
    config = load_sized_config(cfg.network)
    config.num_labels = 1  # read by a head of scores alone
    factory = AutoModelForSequenceClassification if cfg.stage.scores else text_factory(config)
    with torch.device("meta"):
        bare = factory.from_config(
            config, dtype=precision.weights, trust_remote_code=cfg.model.trust_remote_code
        )
        check_names(bare, cfg.model.device_map)
        parameters = bare.num_parameters()
        saved = _bytes(bare) - quantized.size(bare, cfg.quantization, precision.weights)
        model = trainable(bare)
    trained, gradients, state = optimizer(model)
    return Estimate(
        parameters=parameters,
        trained=trained,
        weights=_bytes(model) - saved + _reference(cfg, model, precision) + _reward(cfg, precision),
        gradients=gradients,
        optimizer=state,
        activations=_activations(config.get_text_config(), tokens, precision, cfg),
        available=_available(),
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
    """Bytes of PPO's reward model; an adapter on the policy's base takes next to nothing."""
    rlhf = cfg.rlhf
    if cfg.stage.name != "ppo" or rlhf.reward_model_type != "full":
        return 0
    return _other("rlhf.reward_model", rlhf.reward_model, rlhf.reward_model_quantization_bit, cfg, precision)


def _other(key: str, name: str | None, bits: int | None, cfg: Config, precision: Precision) -> int:
    """Bytes of a model beside the policy. Raises Refused, under the key that names it."""
    try:
        config = load_config(another(cfg.model, name))
    except Refused as refused:
        known = [str(problem).replace("model.model_name_or_path", key) for problem in refused.problems]
        raise Refused(known) from None
    with torch.device("meta"):
        model = AutoModel.from_config(
            config, dtype=precision.weights, trust_remote_code=cfg.model.trust_remote_code
        )
    return quantized.size(model, quantized.bits_alone(bits), precision.weights)


def _bytes(model: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def _activations(config: PretrainedConfig, tokens: int, precision: Precision, cfg: Config) -> int:
    size = 2 if precision.autocast or precision.weights == torch.bfloat16 else 4
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = tokens * (9 * hidden + 4 * inner) * size  # inputs of norms, projections and the gated MLP
    if not cfg.model.disable_gradient_checkpointing:
        kept = config.num_hidden_layers * tokens * hidden * size + layer
    else:
        kept = config.num_hidden_layers * layer
    return kept + 3 * tokens * config.vocab_size * 4  # logits, their log-softmax and its gradient


def _available() -> int:
    """Bytes of the device that trains."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return total_memory()
