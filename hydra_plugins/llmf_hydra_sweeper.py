"""Where Hydra looks for plugins, and the only package it takes them from: the sweeper of llmf_hydra."""

from hydra.core.config_store import ConfigStore

from llmf_hydra.sweeps import sweeper
from llmf_hydra.sweeps.settings import SweeperSettings


class StudySweeper(sweeper.StudySweeper):
    """The sweeper behind `-m`; see `llmf_hydra/sweeps/sweeper.py`."""


ConfigStore.instance().store(group="hydra/sweeper", name="llmf", node=SweeperSettings, provider="llmf_hydra")
