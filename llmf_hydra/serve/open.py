"""The engine that a config describes: by `model.infer_backend`."""

from llmf_hydra.config.schema import Config
from llmf_hydra.serve.engine import Engine
from llmf_hydra.serve.loading import load
from llmf_hydra.serve.transformers_engine import SLOTS, TransformersEngine


def open_engine(cfg: Config, *, slots: int = SLOTS) -> Engine:
    """The engine with its model loaded, which writes `slots` answers at a time. Raises Refused."""
    return TransformersEngine(load(cfg), slots=slots, use_cache=cfg.model.use_cache)
