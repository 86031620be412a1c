"""LLaMA Pro (Wu et al. 2024, arXiv:2401.02415): the blocks that `llmf expand` has added to a model, which alone are
trained."""

import logging

from torch import nn
from transformers import PreTrainedModel

from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods.layers import hidden_layers

log = logging.getLogger(__name__)

RECORD = "expanded_layers"  # in the model's config: the numbers of the layers that were added
KEY, COUNT = "method.use_llama_pro", "method.freeze_trainable_layers"


def recorded(model: PreTrainedModel) -> list[int] | None:
    """The numbers of the added layers, as `llmf expand` has noted them; None for a model that it hasn't made."""
    return model.config.get_text_config().to_dict().get(RECORD)


def added_layers(model: PreTrainedModel, count: int) -> list[int]:
    """The last layer of each of `count` groups of equal size: of 40 layers and 8 blocks each fifth.

    Raises Refused where the layers can't be grouped so, or other layers than these were added.
    """
    _, layers = hidden_layers(model)
    total, known = len(layers), recorded(model)
    fix = f"set {COUNT}={len(known)}" if known else "give the number of blocks that were added"
    if count < 1 or total % count:
        raise Refused(
            [Problem(COUNT, count, f"doesn't divide the {total} layers of the expanded model", fix)]
        )
    stride = total // count
    chosen = list(range(stride - 1, total, stride))
    if known is not None and chosen != known:
        what = f"means the layers {_list(chosen)}, and `llmf expand` has added {_list(known)}"
        raise Refused([Problem(COUNT, count, what, fix)])
    if known is None:
        log.warning(
            "%s=true: the model's config names no added blocks, so the layers %s are taken to be those",
            KEY,
            _list(chosen),
        )
    return chosen


def other_layers(model: PreTrainedModel) -> list[str]:
    """Paths of all that was there before the expansion: layers, and modules outside of them. Raises Refused."""
    known = recorded(model)
    if known is None:
        what = "doesn't know which blocks were added: the model's config doesn't say it"
        remedy = (
            "expand the model with `llmf expand`, or choose method=freeze and method.freeze_trainable_layers"
        )
        raise Refused([Problem(KEY, True, what, remedy)])
    path, _ = hidden_layers(model)
    ours = {f"{path}.{number}" for number in known}
    return [
        name
        for name, module in model.named_modules()
        if name and _is_leaf(module) and not any(f"{name}.".startswith(f"{one}.") for one in ours)
    ]


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
