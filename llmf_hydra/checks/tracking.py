"""Rules of the trackers."""

from collections.abc import Iterator

from llmf_hydra.checks.register import rule
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem


@rule("tracking.files")
def own_files_are_written(cfg: Config) -> Iterator[Problem]:
    """The run's own files are always written."""
    if not cfg.tracking.files:
        yield Problem("tracking.files", False, "the run's own files are always written", "leave it out")
