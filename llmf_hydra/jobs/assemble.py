"""The pieces of a run in the order in which they can fail: tokenizer, rows, estimate, weights, method."""

from dataclasses import dataclass
from importlib import import_module

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from llmf_hydra.config.schema import Config
from llmf_hydra.data.prepare import Prepared, prepare
from llmf_hydra.errors import Problem, Refused
from llmf_hydra.models.load import load_model, load_tokenizer
from llmf_hydra.models.precision import Precision


@dataclass(frozen=True)
class Inputs:
    """What is known before any weight is loaded."""

    tokenizer: PreTrainedTokenizerBase
    rows: Prepared


def load_inputs(cfg: Config) -> Inputs:
    """Tokenizer and tokenized rows; raises Refused if no row is left to train on."""
    tokenizer = load_tokenizer(cfg.model)
    packing = cfg.stage.name == "pt" if cfg.data.packing is None else cfg.data.packing
    rows = prepare(cfg.data, cfg.stage.rows, tokenizer, cfg.generation, cfg.training.seed, packing)
    if len(rows.train) == 0:
        raise Refused([Problem("data.dataset", cfg.data.dataset, "no row is left to train on", "see the data report")])
    return Inputs(tokenizer, rows)


def load_policy(cfg: Config, precision: Precision) -> PreTrainedModel:
    """The model to be trained, with its method applied. The seed is set first, for weights that start random."""
    set_seed(cfg.training.seed)
    method = import_module(f"llmf_hydra.methods.{cfg.method.name}")
    model = load_model(cfg.model, precision.weights)
    return method.apply(model, cfg.method, pure=cfg.training.pure_bf16)
