"""The pieces of a run in the order in which they can fail: tokenizer, rows, estimate, weights, method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from llmf_hydra.config.schema import Config, entries, value_at
from llmf_hydra.data.chat.stops import turn_stops
from llmf_hydra.data.chat.template import load_chat
from llmf_hydra.data.prepare import Prepared, prepare
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.methods.adapters import check_saved
from llmf_hydra.methods.protocol import load_adapter_method, load_method
from llmf_hydra.models.activations.allocator import return_freed_memory
from llmf_hydra.models.activations.apply import base_of, keep_less
from llmf_hydra.models.activations.layers import checkpoint_first
from llmf_hydra.models.architecture.apply import check_precision
from llmf_hydra.models.architecture.kernels import patch_unsloth
from llmf_hydra.models.architecture.placement import check_in_memory
from llmf_hydra.models.base import ADAPTERS, load_base
from llmf_hydra.models.load import load_config, load_tokenizer
from llmf_hydra.models.memory.estimate import Built, Estimate, estimate, far_too_large
from llmf_hydra.models.network import Network
from llmf_hydra.models.precision import Precision, decide
from llmf_hydra.models.quantization import saved
from llmf_hydra.models.quantization.weights import with_targets
from llmf_hydra.models.ref import is_on_hub
from llmf_hydra.models.sources import hubs
from llmf_hydra.models.vocabulary import tokens as vocabulary
from llmf_hydra.optimizers.build import without_weights
from llmf_hydra.training.context import RunContext
from llmf_hydra.training.layout.largest_batch import largest_batches
from llmf_hydra.training.rewards.adapter import check_vocabulary

IMAGES = "pixel_values"  # the column of rows with images


@dataclass(frozen=True)
class Inputs:
    """What is known before any weight is loaded."""

    tokenizer: PreTrainedTokenizerBase
    rows: Prepared
    precision: Precision
    estimate: Estimate

    def lines(self) -> list[str]:
        """The rows and the memory, for people."""
        return [*self.rows.report.lines(), self.estimate.line()]


def load_inputs(cfg: Config) -> Inputs:
    """Tokenizer, tokenized rows, and an estimate of the memory. Raises Refused."""
    _check_devices(cfg)
    _check_saved_weights(cfg)
    tokenizer = load_tokenizer(cfg.network)
    _check_vocabulary(cfg, tokenizer)
    rows = prepare(cfg.data, cfg.stage.rows, tokenizer, cfg.generation, cfg.training.seed, cfg.packs)
    if cfg.data.template is not None:  # saved with the tokenizer, so that serving speaks as training did
        tokenizer.chat_template = load_chat(cfg.data, cfg.generation, tokenizer).text
    _check_images(cfg, rows)
    precision = decide(cfg)
    check_precision(cfg.model, precision)
    needed = _estimate(cfg, rows, precision)
    if (problem := far_too_large(cfg, needed)) is not None:
        raise Refused([problem])
    return Inputs(tokenizer, rows, precision, needed)


def _check_images(cfg: Config, rows: Prepared) -> None:
    """Raise Refused for weights that only images train, where there are none: they would get no gradient."""
    if IMAGES in (rows.train.column_names or ()):
        return
    keys = ("method.freeze_vision_tower", "method.freeze_multi_modal_projector", "method.train_mm_proj_only")
    given = {key: value_at(cfg, key) for key in keys if value_at(cfg, key) != entries()[key].param.default}
    if given:
        what = "has no effect: the rows hold no images"
        raise Refused([Problem(key, value, what, "leave it out") for key, value in given.items()])


def _check_saved_weights(cfg: Config) -> None:
    """What a hub's config.json tells of quantized weights; that of a folder was looked at before."""
    if is_on_hub(str(cfg.model.model_name_or_path)):
        found = list(saved.problems(cfg, Path(hubs.folder_of(cfg.model, weights=False))))
        if found:
            raise Refused(found)


def _check_vocabulary(cfg: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    if cfg.model.new_special_tokens or cfg.model.resize_vocab:
        plain = load_tokenizer(replace(cfg.model, new_special_tokens=None))
        vocabulary.check(cfg.model, plain, tokenizer, load_config(cfg.model))


def _check_devices(cfg: Config) -> None:
    asked, gpus = cfg.launch.nproc_per_node, torch.cuda.device_count()
    if 0 < gpus < asked:
        what = f"this machine shows {gpus} GPU{'s' if gpus > 1 else ''}, and each process takes one"
        raise Refused([Problem("launch.nproc_per_node", asked, what, f"set launch.nproc_per_node={gpus}")])


def load_policy(cfg: Config, precision: Precision, tokenizer: PreTrainedTokenizerBase) -> Network:
    """The model to be trained, with its method applied. The seed is set first: some weights start random."""
    set_seed(cfg.training.seed)
    trainable = _trainable(cfg, _base(cfg, precision, tokenizer))
    if (adapter := _trained_adapter(cfg)) is not None:
        trainable = load_adapter_method(cfg.method.name).load(cast("PeftModel", trainable), adapter)
    return patch_unsloth(trainable) if cfg.model.use_unsloth else keep_less(trainable)


def _trained_adapter(cfg: Config) -> str | None:
    """The folder of the saved adapter that is trained on."""
    adapter = cfg.trained_adapter
    return None if adapter is None else hubs.adapter_folder(adapter, cfg.model, ADAPTERS)


def _base(cfg: Config, precision: Precision, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model under the method, whole in memory."""
    model = load_base(cfg, precision.weights, tokenizer)
    check_in_memory(model, cfg.model.device_map)
    return model


def _trainable(cfg: Config, model: PreTrainedModel) -> Network:
    """The model with its method applied: the adapter fresh, where a saved one is to be trained on."""
    pure, adapter = cfg.training.pure_bf16, _trained_adapter(cfg)
    if adapter is not None:
        return load_adapter_method(cfg.method.name).like(model, adapter, pure=pure)
    method = vocabulary.with_new_rows(with_targets(cfg.method, model), model, cfg.model)
    return load_method(cfg.method.name).apply(model, method, pure=pure)


def _fitting(cfg: Config, model: PreTrainedModel) -> Network:
    """The model without weights as it will be trained. Raises Refused for saved adapters that don't fit on it."""
    rlhf = cfg.rlhf
    if cfg.stage.name == "ppo" and rlhf.reward_model and rlhf.reward_model_type == "lora":
        check_vocabulary(str(rlhf.reward_model), model)
    trainable, adapter = _trainable(cfg, model), _trained_adapter(cfg)
    if adapter is not None:
        check_saved(cast("PeftModel", trainable), adapter)
    return trainable if cfg.model.use_unsloth else keep_less(trainable)


def _estimate(cfg: Config, rows: Prepared, precision: Precision) -> Estimate:
    def optimizer(model: nn.Module) -> Built:
        built, taken = without_weights(model, cfg.optimizer)
        return Built(built, *taken)

    return estimate(
        cfg,
        precision,
        lambda model: _fitting(cfg, model),
        lambda model: largest_batches(cfg, rows, model),
        optimizer,
    )


def run_context(
    cfg: Config,
    inputs: Inputs,
    model: Network,
    callbacks: list[TrainerCallback],
    out: Path,
    weights: Callable[[], Mapping[str, str]] = dict,
) -> RunContext:
    """What a stage's trainer is built from; `weights` waits for the digests of what the run starts from."""
    if cfg.training.activation_memory is not None:
        checkpoint_first(base_of(model), inputs.estimate.checkpointed)
        return_freed_memory()
    # Streamed rows are iterable datasets, which Transformers' trainer takes alike.
    rows = inputs.rows
    return RunContext(
        cfg,
        model,
        inputs.tokenizer,
        cast("Dataset", rows.train),
        cast("Dataset | dict[str, Dataset] | None", rows.eval),
        inputs.precision,
        callbacks,
        out,
        sources=tuple(source.name for source in rows.report.sources),
        data_digest=rows.report.digest,
        weights_digests=weights,
        stops=_stops(cfg, inputs.tokenizer),
    )


def _stops(cfg: Config, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Where answers end; plain text has no turns."""
    if cfg.stage.rows == "text":
        return ()
    return turn_stops(load_chat(cfg.data, cfg.generation, tokenizer))
