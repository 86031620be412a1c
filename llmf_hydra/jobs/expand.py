"""`llmf expand`: LLaMA Pro's expansion (Wu et al. 2024, arXiv:2401.02415).

After each group of layers stands a copy of its last one whose outputs are 0, so that it adds nothing to the residual
stream: the model gives the logits that it gave before, and learns where the copies are trained.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import NO_VALUE, Problem, Refused
from llmf_hydra.methods.layers import hidden_layers
from llmf_hydra.methods.llama_pro import RECORD
from llmf_hydra.models.architecture.mixture_of_depths import is_converted
from llmf_hydra.models.sources import hubs
from llmf_hydra.runs import checkpoints

# Modules and weights of a layer that write into the residual stream, by the names that Transformers gives them.
OUTPUTS = (
    "o_proj",
    "down_proj",
    "out_proj",
    "c_proj",
    "dense",
    "dense_4h_to_h",
    "fc2",
    "w2",
    "wo",
    "linear_out",
)
TOLERANCE = 1e-4  # of the logits, relative to the largest
NO_CODE = {"trust_remote_code": False}  # else Transformers asks on the terminal whether to run a model's own
Weights = dict[str, torch.Tensor]


def expand(name: str, blocks: int, out: Path) -> tuple[list[int], int]:
    """Write a model with `blocks` more layers and its tokenizer into the new folder `out`, whole or not at all.

    Returns the numbers of the added layers and how many layers there are then. Raises Refused for a model that can't
    be loaded, whose layers can't be grouped so, or whose logits would change.
    """
    folder = hubs.folder_of(ModelConfig(model_name_or_path=name), weights=True, key="MODEL")
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **NO_CODE)
        tokenizer = AutoTokenizer.from_pretrained(folder, **NO_CODE)
    except (OSError, ValueError) as error:
        raise Refused([_not_loaded(name, error)]) from error
    if is_converted(model.config):
        what = "was converted by model.mixture_of_depths, whose routers a copied layer would not have"
        raise Refused([Problem("MODEL", name, what, "expand the model that it was made from")])
    path, layers = hidden_layers(model)
    count = len(layers)
    if count % blocks:
        fitting = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        what = f"doesn't divide the {count} layers of {name}"
        raise Refused([Problem("--blocks", blocks, what, f"take one of {fitting}")])
    group = count // blocks
    origin = [
        layer
        for start in range(0, count, group)
        for layer in (*range(start, start + group), start + group - 1)
    ]
    added = list(range(group, count + blocks, group + 1))
    expanded = AutoModelForCausalLM.from_config(_config(folder, count, origin, added), dtype=model.dtype)
    expanded.load_state_dict(_weights(model, f"{path}.", origin, added))
    expanded.generation_config = model.generation_config
    _check_logits(model, expanded, name)
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    except OSError as error:
        raise Refused([Problem("--out", out, f"cannot be written: {error.strerror}")]) from error
    try:
        expanded.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        checkpoints.tidy(draft)
        draft.chmod(0o755)
        if out.exists():  # made by another since it was looked for
            raise Refused([Problem("--out", out, "is there already", "name a new folder")])
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return added, len(origin)


def _not_loaded(name: str, error: Exception) -> Problem:
    if "trust_remote_code" in str(error):
        return Problem("MODEL", name, "comes with code of its own, which is not run", "expand another model")
    return Problem("MODEL", name, str(error).strip().splitlines()[0])


def _config(folder: str, count: int, origin: list[int], added: list[int]) -> PretrainedConfig:
    """The config with more layers: what it says of each layer is said of the copies too."""
    config: Any = AutoConfig.from_pretrained(folder, **NO_CODE)
    text: Any = config.get_text_config()
    for key, value in text.to_dict().items():
        if isinstance(value, list) and len(value) == count and key != RECORD:
            setattr(text, key, [value[layer] for layer in origin])
    text.num_hidden_layers = len(origin)
    setattr(text, RECORD, added)
    return config


def _weights(model: PreTrainedModel, prefix: str, origin: list[int], added: list[int]) -> Weights:
    """The weights of the expanded model: those of a copy are 0 where it would write into the residual stream."""
    weights: Weights = {}
    for name, weight in model.state_dict().items():
        if not name.startswith(prefix):
            weights[name] = weight
            continue
        number, inner = name.removeprefix(prefix).split(".", 1)
        writes = any(part in OUTPUTS for part in inner.split("."))
        for layer in (at for at, of in enumerate(origin) if of == int(number)):
            new = torch.zeros_like(weight) if writes and layer in added else weight
            weights[f"{prefix}{layer}.{inner}"] = new
    return weights


@torch.no_grad()
def _check_logits(model: PreTrainedModel, expanded: PreTrainedModel, name: str) -> None:
    """Raise Refused where the copies add something after all: a kind of layer whose outputs aren't known by name."""
    ids = torch.arange(1, 9)[None] % model.config.get_text_config().vocab_size
    before, after = (of.eval()(input_ids=ids, use_cache=False).logits.float() for of in (model, expanded))
    if (before - after).abs().max() > TOLERANCE * before.abs().max():
        kind = type(model).__name__
        what = f"{name} is a {kind}, whose copied layers would change its logits"
        raise Refused(
            [Problem("MODEL", NO_VALUE, what, "expand a model whose layers end in o_proj and down_proj")]
        )
