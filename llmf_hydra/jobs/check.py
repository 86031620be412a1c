"""`job=check`: everything that can be known of a run without its weights, in seconds."""

from pathlib import Path

from datasets import Dataset

from llmf_hydra.config.schema import Config
from llmf_hydra.data.lengths import draw_lengths, row_lengths
from llmf_hydra.jobs import assemble


def run(cfg: Config, out: Path, *, resume: bool) -> None:
    """Print the rows' counts and the estimate of memory; leave them and a histogram of lengths. Raises Refused."""
    inputs = assemble.load_inputs(cfg)
    inputs.rows.write(out)
    train = inputs.rows.train
    if isinstance(train, Dataset):  # a stream's lengths are known only once it is read
        draw_lengths({"train": row_lengths(train)}, cfg.data.cutoff_len, out / "lengths.png")
    print("\n".join([*inputs.lines(), "the check found nothing to refuse"]), flush=True)
