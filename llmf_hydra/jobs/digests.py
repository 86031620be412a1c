"""Digests of all that decides a result beside the config. Those of files take long: they are computed beside the
training."""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from llmf_hydra.config.schema import Config
from llmf_hydra.data.digests import dataset_files
from llmf_hydra.jobs.assemble import Inputs
from llmf_hydra.models.digests import model_files, weights_digest
from llmf_hydra.models.ref import locate
from llmf_hydra.runs.manifest import digest_of_text
from llmf_hydra.training.rewards.files import reward_files

Digests = dict[str, str | None]
Computed = TypeVar("Computed")


def digests_of_inputs(inputs: Inputs) -> Digests:
    """Digests of the rows, the tokenizer and the template."""
    return {
        "data": inputs.rows.report.digest,
        "tokenizer": digest_of_text(json.dumps(inputs.tokenizer.get_vocab(), sort_keys=True)),
        "template": digest_of_text(str(inputs.tokenizer.chat_template)),
    }


def digests_of_weights(cfg: Config) -> Digests:
    """Digests of the model and the adapters; None for what isn't a local folder."""
    adapters = {f"adapter {name}": weights_digest(name) for name in cfg.model.adapters}
    return {"model": weights_digest(locate(cfg.model)), **adapters}


def files_of(cfg: Config) -> dict[str, object]:
    """Each file that the run reads, with its SHA-256: of the datasets, of the models by their settings, of rewards."""
    return {"data": dataset_files(cfg.data), "models": model_files(cfg), "rewards": reward_files(cfg)}


def in_background(compute: Callable[[], Computed]) -> "Future[Computed]":
    """Start computing in a thread; hashing lets other threads run."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digests")
    future = pool.submit(compute)
    pool.shutdown(wait=False)
    return future
