"""RoPE scaling: longer inputs than the model was trained on.

The factor is the smallest whole number of times that the model's own length must be taken to hold the input. `linear`
(Chen et al. 2023, arXiv:2306.15595), `dynamic` (NTK-aware, by the length of the input), `yarn` (Peng et al. 2023,
arXiv:2309.00071) and `llama3` are computed by Transformers, from the config's `rope_parameters`.
"""

from typing import Any

from torch import nn
from transformers import PretrainedConfig

from llmf_hydra.config.groups.model import ModelConfig
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.architecture.fits import rope_factor

KEY = "model.rope_scaling"
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # as Llama 3.1 was trained


def scale(config: PretrainedConfig, model: ModelConfig) -> None:
    """Write the scaling into a model's config, which saves it. Raises Refused where it can't act."""
    if model.rope_scaling is None:
        return
    text: Any = config.get_text_config()
    own, length = _own_length(text, model.rope_scaling), model.model_max_length
    if length is None or length <= own:
        raise _refused(model.rope_scaling, f"has no effect: the model takes {own} tokens by itself, and the input "
                       f"has at most {length}", "raise data.cutoff_len, or leave it out")  # fmt: skip
    factor = rope_factor(length, own)
    scaled = {**text.rope_parameters, "rope_type": model.rope_scaling, "factor": factor}
    if model.rope_scaling in ("yarn", "llama3"):
        scaled["original_max_position_embeddings"] = own
    if model.rope_scaling == "llama3":
        scaled |= LLAMA3
    text.rope_parameters = scaled
    if model.rope_scaling != "dynamic":  # which begins to scale beyond the length that stands here
        text.max_position_embeddings = int(own * factor)


def follow_each_input(network: nn.Module) -> None:
    """Have `dynamic` scale by the input at hand. Transformers' module remembers the longest one it has seen, so that
    results would depend on earlier batches, and a resumed run would differ."""
    for module in network.modules():
        if getattr(module, "rope_type", None) == "dynamic":
            module.register_forward_pre_hook(lambda rope, _: _forget(rope))


def _forget(rope: Any) -> None:
    rope.max_seq_len_cached = rope.original_max_seq_len
    rope.inv_freq = rope.original_inv_freq.to(rope.inv_freq.device)


def _own_length(text: Any, kind: str) -> int:
    parameters = text.to_dict().get("rope_parameters")
    own = text.to_dict().get("max_position_embeddings")
    if not parameters or own is None or "rope_type" not in parameters:
        raise _refused(
            kind, f"finds no RoPE that is the same in all layers of a {text.model_type} model", "leave it out"
        )
    if parameters["rope_type"] != "default":
        raise _refused(kind, f"would replace the scaling that the model was trained with ({parameters['rope_type']})",
                       "leave it out")  # fmt: skip
    return int(own)


def _refused(kind: str, what: str, remedy: str) -> Refused:
    return Refused([Problem(KEY, kind, what, remedy)])
