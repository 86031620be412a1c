"""Whether a saved model or adapter gives a score instead of text, by its config file. Without torch."""

from collections.abc import Mapping
from typing import Any

HEAD = "score"  # the module of a sequence classifier that gives its scores
OTHER_HEADS = ("classifier",)  # what other classifiers call theirs
TASK = "SEQ_CLS"  # what PEFT calls an adapter with such a head


def model_scores(config: Mapping[str, Any]) -> bool:
    """Whether the `config.json` of a model says that it was saved with a head that scores."""
    return any(name.endswith("SequenceClassification") for name in config.get("architectures") or [])


def adapter_scores(config: Mapping[str, object]) -> bool:
    """Whether the `adapter_config.json` of an adapter says so."""
    return config.get("task_type") == TASK
