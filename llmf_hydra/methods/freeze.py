"""`method=freeze`: some layers are trained, the rest stays as it is."""

from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.checks.scorer import HEAD
from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.config.names import names
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods import llama_pro, vision
from llmf_hydra.methods.layers import hidden_layers
from llmf_hydra.methods.modules import check_names, scores

LAYERS, MODULES, EXTRA = (
    "method.freeze_trainable_layers",
    "method.freeze_trainable_modules",
    "method.freeze_extra_modules",
)


def apply(model: PreTrainedModel, method: MethodConfig, *, pure: bool) -> PreTrainedModel:
    """The model with only the chosen modules trainable, and with them a head of scores, which starts random.

    Raises Refused for more layers than there are, and for names the model doesn't have.
    """
    vision.check(model, method)
    path, layers = hidden_layers(model)
    model.requires_grad_(False)
    vision.set_trained(model, method)
    for layer in _chosen(model, layers, method):
        for module in _inside(layer, layers[0], names(method.freeze_trainable_modules)):
            module.requires_grad_(True)
    for module in _outside(model, path, names(method.freeze_extra_modules)):
        module.requires_grad_(True)
    if scores(model):
        model.get_submodule(HEAD).requires_grad_(True)
    return model


def _chosen(model: PreTrainedModel, layers: nn.ModuleList, method: MethodConfig) -> list[nn.Module]:
    """The last `freeze_trainable_layers` layers, the first if it is negative; with LLaMA Pro those that were added."""
    count = method.freeze_trainable_layers
    if method.use_llama_pro:
        return [layers[number] for number in llama_pro.added_layers(model, count)]
    if abs(count) > len(layers):
        raise Refused([Problem(LAYERS, count, f"the model has {len(layers)} layers")])
    return list(layers)[-count:] if count > 0 else list(layers)[:-count] if count < 0 else []


def _inside(layer: nn.Module, example: nn.Module, wanted: list[str]) -> list[nn.Module]:
    """Modules of a layer by their path in it, such as mlp or self_attn.q_proj; all: the whole layer."""
    if wanted == ["all"]:
        return [layer]
    known = {path for path, module in example.named_modules() if path and _has_weights(module)}
    check_names(MODULES, [name for name in wanted if name not in known], known)
    return [layer.get_submodule(name) for name in wanted]


def _outside(model: nn.Module, layers: str, wanted: list[str]) -> list[nn.Module]:
    """Modules outside the hidden layers by the last part of their path, such as embed_tokens or norm."""
    found: dict[str, list[nn.Module]] = {}
    for path, module in model.named_modules():
        holds_layers = not path or layers == path or layers.startswith(f"{path}.")
        if not holds_layers and not path.startswith(f"{layers}.") and _has_weights(module):
            found.setdefault(path.rpartition(".")[2], []).append(module)
    check_names(EXTRA, [name for name in wanted if name not in found], set(found))
    return [module for name in wanted for module in found[name]]


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
