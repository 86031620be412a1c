"""PiSSA (Meng et al. 2024, arXiv:2404.02948): LoRA that starts as the principal components of the weights.

With `W = U S V'`, `A = sqrt(S / s) V'` and `B = U sqrt(S / s)` of the largest singular values, s being the scaling of
LoRA, the base keeps the residual `W - s B A`. So the adapter switched off is not the base. A saved adapter has beside
it the folder `residual/`: a plain adapter that, merged into the base, gives the residual. Converted, the two are one
plain LoRA adapter of twice the rank on the base.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.lora.layer import Embedding, LoraLayer
from peft.utils import load_peft_weights
from safetensors.torch import load_file, save_file
from torch import nn

from llmf_hydra.checks.residual import RESIDUAL
from llmf_hydra.config.groups.method import MethodConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods.adapters import START, keep_start, weights_of

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
NAME = "default"


@torch.no_grad()
def initialize(model: PeftModel, method: MethodConfig) -> None:
    """Move the principal components of each adapted weight into its adapter; adapter `ref` keeps them as they are.

    On the meta device only what can be refused is looked at. Raises Refused for weights that have no such
    components: embeddings, shared weights, and those of fewer rows or columns than the rank.
    """
    layers = list(_layers(model))
    for path, layer in layers:
        _check(model, path, layer, method)
    if any(weight.is_meta for weight in model.parameters()):
        return
    for _, layer in layers:
        weight = layer.get_base_layer().weight
        b, a = _components(weight.float(), method.lora_rank, method.pissa_iter, layer.scaling[NAME])
        layer.lora_A[NAME].weight.copy_(a)
        layer.lora_B[NAME].weight.copy_(b)
        weight.copy_(weight.float() - layer.scaling[NAME] * (b @ a))
    keep_start(model)


def write_residual(model: PeftModel, folder: Path) -> None:
    """Write `residual/` beside a saved adapter."""
    start = weights_of(model, START)
    weights = {name: weight.detach().cpu() for name, weight in start.items() if ".lora_A." in name}
    weights |= {name: -weight.detach().cpu() for name, weight in start.items() if ".lora_B." in name}
    of: Any = model.peft_config[START]
    config = LoraConfig(
        r=of.r,
        lora_alpha=of.lora_alpha,
        use_rslora=of.use_rslora,
        target_modules=of.target_modules,
        base_model_name_or_path=of.base_model_name_or_path,
        inference_mode=True,
    )
    (folder / RESIDUAL).mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / RESIDUAL / WEIGHTS)
    config.save_pretrained(str(folder / RESIDUAL))


@torch.no_grad()
def restore(model: PeftModel, folder: Path) -> None:
    """Have the residual of a checkpoint, where this machine's decomposition gave another one in its last bits."""
    if RESIDUAL in model.peft_config:  # Transformers loads each adapter that lies in a checkpoint
        model.delete_adapter(RESIDUAL)
    saved = load_peft_weights(str(folder / RESIDUAL), device="cpu")
    saved = {name: -weight if ".lora_B." in name else weight for name, weight in saved.items()}
    start = weights_of(model, START)
    if all(torch.equal(weight, start[name].cpu()) for name, weight in saved.items()):
        return
    for sign in (1, -1):  # put the components that were taken back, then take the saved ones
        for _, layer in _layers(model):
            weight = layer.get_base_layer().weight
            components = layer.lora_B[START].weight @ layer.lora_A[START].weight
            weight.copy_(weight.float() + sign * layer.scaling[START] * components)
        if sign == 1:
            set_peft_model_state_dict(model, {**start, **saved}, adapter_name=START)


def convert(folder: Path) -> None:
    """Turn a saved adapter and its `residual/` into one plain LoRA adapter on the base.

    `s B A - s B0 A0 = s [B, -B0] [A; A0]`: twice the rank, and the scaling s as before.
    """
    weights, rest = load_file(folder / WEIGHTS), load_file(folder / RESIDUAL / WEIGHTS)
    for name, weight in rest.items():
        side = 0 if ".lora_A." in name else 1
        weights[name] = torch.cat([weights[name], weight.to(weights[name].dtype)], dim=side).contiguous()
    known: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf8"))
    rank, alpha = known["r"], known["lora_alpha"]
    wider = (
        alpha * 2**0.5 if known["use_rslora"] else 2 * alpha
    )  # the scaling is alpha / sqrt(r), or alpha / r
    known |= {"r": 2 * rank, "lora_alpha": wider}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(known, indent=2, sort_keys=True), encoding="utf8")
    shutil.rmtree(folder / RESIDUAL)


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield path, module


def _check(model: PeftModel, path: str, layer: Any, method: MethodConfig) -> None:
    base = layer.get_base_layer()
    name = path.removeprefix("base_model.model.")
    embedding: Any = model.get_base_model().get_input_embeddings()  # pyright: ignore
    if isinstance(layer, Embedding) or base.weight is embedding.weight:
        what = f"can't take components out of {name}, the embedding or a weight shared with it"
        raise Refused([Problem("method.pissa_init", True, what, "leave it out of method.lora_target")])
    if not base.weight.is_floating_point():
        what = f"can't take components out of the quantized weight {name}"
        raise Refused([Problem("method.pissa_init", True, what, "train it without quantization")])
    largest = min(base.weight.shape)
    if method.lora_rank > largest:
        what = f"pissa_init has {largest} components of {name}, a weight of shape {tuple(base.weight.shape)}"
        raise Refused([Problem("method.lora_rank", method.lora_rank, what, f"set it to {largest} at most")])


def _components(
    weight: torch.Tensor, rank: int, iterations: int | None, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """B (out, rank) and A (rank, in) of a weight (out, in), with `scaling * B @ A` its principal part."""
    if iterations is None or iterations < 0:
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        u, s, v = u[:, :rank], s[:rank], v[:rank]
    else:
        u, s, transposed = torch.svd_lowrank(weight, q=rank, niter=iterations)
        v = transposed.T
    root = torch.sqrt(s / scaling)
    return u * root, root[:, None] * v
