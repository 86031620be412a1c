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
        manifest = runs.read_manifest(out)
    except ValueError:
        raise _damaged(name, "is not valid JSON") from None
    fault = runs.manifest_fault(manifest) or _lacks(manifest)
    if fault is not None:
        raise _damaged(name, fault)
    return out, manifest


def _lacks(manifest: runs.Manifest) -> str | None:
    lacking = [key for key in ("cwd", "command", "created") if not manifest.get(key)]
    return f"lacks {' and '.join(lacking)}" if lacking else None


def _damaged(name: str, fault: str) -> Refused:
    what = f"its {runs.MANIFEST} is damaged ({fault})"
    return Refused([Problem(name, NO_VALUE, what, "`llmf runs` lists the runs that can be read")])
