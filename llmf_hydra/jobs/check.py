"""`job=check`: everything that can be known of a run without its weights, in seconds."""

from pathlib import Path

from llmf_hydra.config.schema import Config
from llmf_hydra.jobs import assemble


def run(cfg: Config, out: Path, *, resume: bool) -> None:
    """Print the rows' counts and the estimate of memory, and leave them in the folder. Raises Refused."""
    inputs = assemble.load_inputs(cfg)
    inputs.rows.write(out)
    print("\n".join([*inputs.lines(), "the check found nothing to refuse"]), flush=True)
