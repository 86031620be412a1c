"""LoRA+: a learning rate of their own for the matrices B, and one for the adapters of embeddings.

Hayou et al. 2024, arXiv:2402.12354: at width n the optimal rates of A and B differ by a factor, `loraplus_lr_ratio`.
"""

from peft import PeftModel
from peft.tuners.lora.layer import Embedding
from torch import nn

from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.errors import Problem, Refused

EMBEDDING_KEY = "method.loraplus_lr_embedding"
DEFAULT: float = MethodConfig.__dataclass_fields__["loraplus_lr_embedding"].default


def check(model: PeftModel, method: MethodConfig) -> None:
    """Raise Refused for a rate of embedding adapters on a model that has none."""
    given = method.loraplus_lr_embedding
    if method.loraplus_lr_ratio is not None and given != DEFAULT and not _embedding_weights(model):
        what = "has no effect: no embedding has an adapter"
        raise Refused(
            [Problem(EMBEDDING_KEY, given, what, "name one in method.lora_target, or leave it out")]
        )


def rates(model: nn.Module, method: MethodConfig) -> tuple[dict[str, float], dict[str, float]]:
    """By name of a trained weight: its factor of the run's learning rate, and a rate that doesn't follow that one.

    The grouping of PEFT's `create_loraplus_optimizer`: biases and other vectors go with B.
    """
    if method.loraplus_lr_ratio is None:
        return {}, {}
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    embeddings = _embedding_weights(model)
    own = method.loraplus_lr_embedding
    absolute = {name: own for name in trained if name in embeddings and own is not None}
    factors = {
        name: method.loraplus_lr_ratio
        for name, weight in trained.items()
        if name not in embeddings and ("lora_B" in name or weight.ndim == 1)
    }
    return factors, absolute


def _embedding_weights(model: nn.Module) -> set[str]:
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, Embedding)
        for name, _ in module.named_parameters()
        if "lora_" in name
    }
