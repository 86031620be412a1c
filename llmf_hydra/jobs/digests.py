"""Digests of all that decides a result beside the config. Those of weights take long: they are computed beside the
training."""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from llmf_hydra.config.names import names
from llmf_hydra.config.schema import Config
from llmf_hydra.jobs.assemble import Inputs
from llmf_hydra.models.digests import digest_of_folder
from llmf_hydra.models.ref import locate
from llmf_hydra.runs.manifest import digest_of_text

Digests = dict[str, str | None]


def digests_of_inputs(inputs: Inputs) -> Digests:
    """Digests of the rows, the tokenizer and the template."""
    return {
        "data": inputs.rows.report.digest,
        "tokenizer": digest_of_text(json.dumps(inputs.tokenizer.get_vocab(), sort_keys=True)),
        "template": digest_of_text(str(inputs.tokenizer.chat_template)),
    }


def digests_of_weights(cfg: Config) -> Digests:
    """Digests of the model and the adapters; None for what isn't a local folder."""
    adapters = {f"adapter {name}": digest_of_folder(name) for name in names(cfg.model.adapter_name_or_path)}
    return {"model": digest_of_folder(locate(cfg.model)), **adapters}


def in_background(compute: Callable[[], Digests]) -> "Future[Digests]":
    """Start computing in a thread; hashing lets other threads run."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digests")
    future = pool.submit(compute)
    pool.shutdown(wait=False)
    return future
