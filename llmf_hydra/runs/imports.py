"""How a worker imports its libraries: without those its run doesn't need, and without looking for garbage meanwhile.

Not needed are bitsandbytes and hqq, which take seconds. PEFT and Transformers import them wherever they are installed,
and the former brings PyTorch's compiler. A worker hears of it in its environment, before it imports anything; so a warm
worker is forked only from a server that has left out the same. It is for the whole process: PEFT asks once whether hqq
is there, and remembers the answer.
"""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from llmf_hydra.config.schema import Config
from llmf_hydra.optional import WITHOUT

BITSANDBYTES, HQQ = "bitsandbytes", "hqq"
BUILT_IN = "builtin:"


def environment(cfg: Config | DictConfig) -> dict[str, str]:
    """The environment variable that tells the workers of a run what to leave out; a sweep's config will do."""
    names = left_out(cfg)
    return {WITHOUT: ",".join(names)} if names else {}


def left_out(cfg: Config | DictConfig) -> list[str]:
    """The packages that a run surely doesn't use."""
    quantized = (
        cfg.quantization.quantization_bit,
        cfg.rlhf.ref_model_quantization_bit,
        cfg.rlhf.reward_model_quantization_bit,
    )
    by_hqq = cfg.quantization.quantization_bit and cfg.quantization.quantization_method == HQQ
    whole = not any(quantized) and all(map(_is_whole, _models(cfg)))
    return [*([BITSANDBYTES] if whole else []), *([] if by_hqq else [HQQ])]


def _models(cfg: Config | DictConfig) -> Iterator[str]:
    for name in (cfg.model.model_name_or_path, cfg.rlhf.ref_model, cfg.rlhf.reward_model):
        if name is not None:
            yield str(name)


def _is_whole(model: str) -> bool:
    """Whether a model's weights are surely in full precision: what is on a hub isn't known yet."""
    if model.startswith(BUILT_IN):
        return True
    try:
        config = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "quantization_config" not in config


@contextmanager
def uncollected() -> Iterator[None]:
    """Within, where libraries are imported, the garbage collector rests; later it passes over all that was made there.

    Importing makes a million objects, of which hardly one is garbage, and the collector would look at them again and
    again: a fifth of a start. Later each full collection, such as Accelerate's before training, would take half a
    second. Where workers are forked, their memory stays shared.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
