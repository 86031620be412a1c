"""A run folder as it is named on the command line."""

from pathlib import Path

from llmf_hydra.errors import NO_VALUE, Problem, Refused
from llmf_hydra.runs import folder as runs


def named_run(name: str) -> tuple[Path, runs.Manifest]:
    """The folder and its manifest. Raises Refused for what isn't a run folder."""
    out = Path(name).expanduser().absolute()
    if not (out / runs.MANIFEST).exists():
        raise Refused([Problem(name, NO_VALUE, "is not a run folder", "`llmf runs` lists them")])
    try:
        return out, runs.read_manifest(out)
    except ValueError:
        what = f"its {runs.MANIFEST} is not valid JSON"
        raise Refused(
            [Problem(name, NO_VALUE, what, "`llmf runs` lists the runs that can be read")]
        ) from None
