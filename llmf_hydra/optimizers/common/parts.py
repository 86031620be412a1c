"""The parts of a model that optimizers tell apart: hidden layers, linear layers, the attention's heads."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmf_hydra.config.names import names
from llmf_hydra.errors import Problem, Refused, did_you_mean

ALL = "all"


def text_config(model: nn.Module) -> PretrainedConfig | None:
    """The config of the language model within a model."""
    found = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    return None if found is None else found.config.get_text_config()


def hidden_layers(model: nn.Module, optimizer: str) -> list[nn.Module]:
    """The hidden layers in their order. Raises Refused for a model that holds no list of them."""
    config = text_config(model)
    for module in model.modules():
        if (
            isinstance(module, nn.ModuleList)
            and config is not None
            and len(module) == config.num_hidden_layers
        ):
            return list(module)
    what = "finds no list of hidden layers in this model"
    raise Refused([Problem("optimizer", optimizer, what, "choose optimizer=adamw")])


def linear_weights(model: nn.Module, key: str, wanted: str) -> set[nn.Parameter]:
    """The trained weights of the linear layers of that name, or of all in the hidden layers.

    A name is one part of a layer's path or several in sequence: `q_proj`, `mlp`, `layers.0`, `self_attn.q_proj`.
    Raises Refused for a name that no trained linear layer has.
    """
    trained = {path: weight for path, weight in _linear(model) if weight.requires_grad}
    if wanted == ALL:
        if not trained:
            raise Refused([Problem(key, ALL, "no linear layer of the hidden layers is trained")])
        return set(trained.values())
    problems: list[Problem] = []
    found: set[nn.Parameter] = set()
    for name in names(wanted):
        matching = [weight for path, weight in trained.items() if f".{name}." in f".{path}."]
        found.update(matching)
        if not matching:
            problems.append(_no_such_layer(key, name, list(trained)))
    if problems:
        raise Refused(problems)
    return found


def check_rank(weights: Iterable[nn.Parameter], key: str, rank: int) -> None:
    """Raise Refused for a rank that the gradient of no projected matrix can have."""
    longest = max(min(weight.shape) for weight in weights)
    if rank > longest:
        what = "is above the shorter dimension of every targeted layer, and no gradient has a higher rank than that"
        raise Refused([Problem(key, rank, what, f"take {longest} or less, or choose optimizer=adamw")])


def with_settings(
    groups: Sequence[Any], chosen: set[nn.Parameter], **settings: object
) -> list[dict[str, Any]]:
    """Each group cut in two, without empty ones: the chosen weights with further settings, and the others."""
    cut: list[dict[str, Any]] = []
    for group in groups:
        inside = [weight for weight in group["params"] if weight in chosen]
        outside = [weight for weight in group["params"] if weight not in chosen]
        cut += [{**group, "params": inside, **settings}] if inside else []
        cut += [{**group, "params": outside}] if outside else []
    return cut


def head_size(model: nn.Module) -> int | None:
    """Output neurons of one attention head; None where the model's config doesn't say."""
    config: Any = text_config(model)
    if config is None or not config.num_attention_heads:
        return None
    given: int | None = config.to_dict().get("head_dim")
    return given or config.hidden_size // config.num_attention_heads


def _linear(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Linear layers of the lists of layers: an output head, whether of tokens or of scores, is in none."""
    lists = [path for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{holder}.") for holder in lists)
        if inside and isinstance(module, nn.Linear | Conv1D) and isinstance(module.weight, nn.Parameter):
            yield path, module.weight


def _no_such_layer(key: str, name: str, paths: list[str]) -> Problem:
    known = sorted({path.rpartition(".")[2] for path in paths})
    parts = {part for path in paths for part in path.split(".") if not part.isdigit()}
    remedy = did_you_mean(name, parts) or f"write {ALL}"
    return Problem(
        key, name, f"names no linear layer that is trained; the model has {', '.join(known)}", remedy
    )
