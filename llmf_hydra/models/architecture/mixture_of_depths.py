"""Mixture of depths (Raposo et al. 2024, arXiv:2404.02258): every second layer computes an eighth of the tokens.

A router, a linear map from the hidden state x to a number r, chooses them; the others pass the layer by:
`x + r f(x)` for a chosen token, `x` for another (eq. 1), where f is the layer without its residual, computed among the
chosen tokens alone.

In training the tokens with the largest r of each row are chosen, which looks ahead. Where text is evaluated or
generated, a token is chosen if r > 0, which needs none of what follows (section 3.5): a second loss teaches the
router to put the chosen ones above 0, binary cross-entropy between r and the choice. A layer has keys of its chosen
tokens alone, so the model generates without a cache.
"""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.architecture.fits import DEPTHS, DEPTHS_FIELD

KEY = "model.mixture_of_depths"
CAPACITY, EVERY = 0.125, 2
ROUTER = "depth_router"  # the router's name in its layer
LOSS_WEIGHT = 0.01  # of the router's loss; the paper names none


def is_converted(config: PretrainedConfig) -> bool:
    """Whether a model's config says that tokens skip some of its layers."""
    return DEPTHS_FIELD in config.to_dict()


def configure(config: PretrainedConfig, model: ModelConfig) -> None:
    """Note it in the config of a model that is converted, which saves it. Raises Refused where it doesn't fit."""
    asked, known = model.mixture_of_depths, is_converted(config)
    if asked is None and known:
        raise _refused(asked, "the model was converted: its layers have routers", f"set {KEY}=load")
    if asked == "load" and not known:
        raise _refused(asked, "the model was not converted", f"set {KEY}=convert")
    if asked == "convert" and known:
        raise _refused(asked, "the model is converted already", f"set {KEY}=load")
    if asked is not None and config.model_type not in DEPTHS:
        kinds = ", ".join(DEPTHS)
        raise _refused(
            asked, f"is built for {kinds} models, and this is a {config.model_type} model", "leave it out"
        )
    if asked == "convert":
        setattr(config, DEPTHS_FIELD, {"capacity": CAPACITY, "every": EVERY})


def convert(network: PreTrainedModel) -> None:
    """Give every second layer a router, with random weights."""
    settings = network.config.to_dict()[DEPTHS_FIELD]
    decoder = network.base_model
    layers = list(decoder.layers)[settings["every"] - 1 :: settings["every"]]  # pyright: ignore
    for layer in layers:
        like = next(layer.parameters())
        router = nn.Linear(network.config.hidden_size, 1, bias=False, device=like.device, dtype=like.dtype)
        nn.init.normal_(router.weight, std=network.config.initializer_range)
        layer.add_module(ROUTER, router)
        layer.capacity, layer.real, layer.router_loss = settings["capacity"], None, None
        layer.__class__ = _routed(type(layer))
        # Outside of `forward`, which activation checkpointing computes twice and at first without gradients.
        layer.register_forward_pre_hook(_route, with_kwargs=True)

    def note_mask(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        mask = named.get("attention_mask")
        for layer in layers:
            layer.real = mask.bool() if mask is not None and mask.ndim == 2 else None

    decoder.register_forward_pre_hook(note_mask, with_kwargs=True)
    if network.generation_config is not None:
        network.generation_config.use_cache = False


def load_routers(network: PreTrainedModel, folder: Path) -> None:
    """Give a converted network the routers that were saved with it. Raises Refused where they aren't there."""
    wanted = {name: weight for name, weight in network.named_parameters() if f".{ROUTER}." in name}
    found = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as saved:
            for name in wanted.keys() & saved.keys():
                with torch.no_grad():
                    wanted[name].copy_(saved.get_tensor(name))
                found.add(name)
    if found != wanted.keys():
        raise _refused(
            "load", f"{folder} holds no routers ({min(wanted.keys() - found)})", f"set {KEY}=convert"
        )


def take_router_loss(network: nn.Module) -> torch.Tensor | None:
    """The routers' loss in the forward pass that was just made, a mean over the layers; None where there is none."""
    layers: list[Any] = [module for module in network.modules() if hasattr(module, ROUTER)]
    losses = [layer.router_loss for layer in layers if layer.router_loss is not None]
    for layer in layers:
        layer.router_loss = None
    return torch.stack(losses).mean() if losses else None


def choose(scores: torch.Tensor, real: torch.Tensor, capacity: float | None) -> torch.Tensor:
    """Which tokens are computed, of scores (batch, n): the share `capacity` of the `real` ones of each row, rounded up;
    with None those above 0."""
    if capacity is None:
        return real & (scores > 0)
    counts = torch.tensor([max(1, math.ceil(capacity * count)) for count in real.sum(dim=1).tolist()])
    order = scores.masked_fill(~real, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return real & (order.argsort(dim=1) < counts.to(scores.device)[:, None])


def _route(
    layer: Any, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before a layer's forward pass: score its tokens, choose, and note the router's loss."""
    hidden, *rest = given
    scores = getattr(layer, ROUTER)(hidden).squeeze(-1)
    real = torch.ones_like(scores, dtype=torch.bool) if layer.real is None else layer.real
    chosen = choose(scores.detach(), real, layer.capacity if layer.training else None)
    target = chosen if layer.training else choose(scores.detach(), real, layer.capacity)
    layer.router_loss = F.binary_cross_entropy_with_logits(scores[real].float(), target[real].float())
    return (hidden, scores, *rest), {**named, "chosen": chosen}


def _routed(layer: type[nn.Module]) -> type[nn.Module]:
    """The class of a layer that computes chosen tokens alone."""
    return type(f"Routed{layer.__name__}", (_RoutedLayer, layer), {})


class _RoutedLayer(nn.Module):
    """Before a layer's class: `scores` and `chosen`, (batch, n), come from `_route`."""

    def forward(
        self,
        hidden: torch.Tensor,
        scores: torch.Tensor,
        *,
        chosen: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        cache: object = None,
        attention_mask: object = None,
        position_ids: object = None,
        use_cache: object = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        if cache is not None:
            raise ValueError("a model with mixture of depths generates without a cache: set use_cache=False")
        count = max(1, int(chosen.sum(dim=1).max()))
        index = (
            (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
        )  # the chosen ones, in their order
        valid = chosen.gather(1, index)
        some = _at(hidden, index)
        positions = tuple(_at(each.expand(len(hidden), -1, -1), index) for each in position_embeddings)
        mask = _mask(index, valid, hidden.dtype)
        computed: torch.Tensor = super().forward(
            some, attention_mask=mask, position_embeddings=positions, use_cache=False, **kwargs
        )
        weight = (scores.gather(1, index) * valid).unsqueeze(-1).to(hidden.dtype)
        return hidden.scatter_add(1, _wide(index, hidden), weight * (computed - some))


def _mask(index: torch.Tensor, valid: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(batch, 1, count, count): 0 where a token sees another that is valid and not after it, else the least number."""
    sees = valid[:, None, :] & (index[:, None, :] <= index[:, :, None])
    sees |= torch.eye(index.shape[1], dtype=torch.bool, device=index.device)
    mask = torch.zeros(sees.shape, dtype=dtype, device=index.device)
    return mask.masked_fill(~sees, torch.finfo(dtype).min).unsqueeze(1)


def _wide(index: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    return index.unsqueeze(-1).expand(-1, -1, states.shape[-1])


def _at(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """States (batch, n, size) at the places (batch, count)."""
    return states.gather(1, _wide(index, states))


def _refused(value: str | None, what: str, remedy: str) -> Refused:
    return Refused([Problem(KEY, value, what, remedy)])
