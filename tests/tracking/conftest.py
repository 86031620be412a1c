"""A run folder and a config for the trackers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from llmf_hydra.config.groups.tracking import TrackingConfig
from llmf_hydra.tracking.contract import RunInfo

FROM_ENVIRONMENT = ("WANDB_PROJECT", "WANDB_DISABLED", "WANDB_API_KEY", "WANDB_ENTITY", "MLFLOW_TRACKING_URI")


@pytest.fixture
def make_tracking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrackingConfig]:
    """Makes the group `tracking` as a composed config holds it, with the given values."""
    for name in (*FROM_ENVIRONMENT, "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)

    def make(**values: Any) -> TrackingConfig:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrackingConfig), values))

    return make


@pytest.fixture
def make_info(tmp_path: Path) -> Callable[..., RunInfo]:
    """Makes the facts of a run whose folder is `outputs/dpo/<folder>`."""

    def make(folder: str = "run1", **facts: Any) -> RunInfo:
        outputs = tmp_path / "outputs"
        out = outputs / "dpo" / folder
        out.mkdir(parents=True)
        return RunInfo(out=out, outputs=outputs, **facts)

    return make
