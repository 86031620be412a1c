"""Whether two names are of one model, told by what lies in their folders. Without torch."""

import hashlib
from pathlib import Path

from llmf_hydra.config.groups.model import EMBEDDED, TINY
from llmf_hydra.models.ref import is_gguf
from llmf_hydra.models.sources.gguf import converted_name

BUILT_IN = {TINY: "tiny-v", EMBEDDED: "smollm2-135m-instruct-v"}  # how their folders in the cache are named
WEIGHTS = ("*.safetensors", "*.bin")
SAMPLE = (
    2**16
)  # bytes read at the beginning, in the middle and at the end of a weight file: gigabytes take too long


def same_model(base: str, model: str) -> bool:
    """Whether `base`, as an adapter names its model, is the run's `model`.

    Two folders are one model if their weights are the same, whatever they are called; a folder and a hub's name if
    the folder is called so. A folder that is gone can't be compared and is another model.
    """
    if base == model:
        return True
    if model in BUILT_IN:
        return Path(base).name.startswith(BUILT_IN[model])
    if is_gguf(model):
        return Path(base).name == converted_name(Path(model).expanduser())
    ours, theirs = Path(model).expanduser(), Path(base).expanduser()
    if ours.is_dir() and theirs.is_dir():
        return ours.resolve() == theirs.resolve() or _content(ours) == _content(theirs)
    return _is_hub_name(base) != _is_hub_name(model) and ours.name == theirs.name


def _is_hub_name(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).is_dir()


def _content(folder: Path) -> list[tuple[str, int, str]]:
    """Name, size and a sample of each weight file; of the config where there are no weights."""
    files = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
    return [(file.name, file.stat().st_size, _sample(file)) for file in files or [folder / "config.json"]
            if file.is_file()]  # fmt: skip


def _sample(file: Path) -> str:
    size, sampled = file.stat().st_size, hashlib.blake2b(digest_size=16)
    with file.open("rb") as stream:
        for at in (0, size // 2, max(0, size - SAMPLE)):
            stream.seek(at)
            sampled.update(stream.read(SAMPLE))
    return sampled.hexdigest()
