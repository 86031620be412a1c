"""What the fields of the page may say: words of a command line, and runs below the outputs folder.

Who uses the page may not be who started it, so a field names no path outside the folder that the page was started in.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmf_hydra.errors import NO_VALUE, Problem, Refused
from llmf_hydra.runs.folder import MANIFEST

OUTPUTS = "outputs"
SEPARATORS = re.compile(r"""[\s,='"()\[\]{}]+|:(?!//)""")  # between the texts inside a value
ABSOLUTE = re.compile(r"[/\\~]|[A-Za-z]:[/\\]|file:", re.IGNORECASE)
HYDRA = (
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweeper.",
    "hydra/sweeper",
)  # what may be said to Hydra itself
HERE = (
    "name one below the folder that the page was started in, or add its folder to serve.gradio_allowed_paths"
)


@dataclass(frozen=True)
class Place:
    """The folder that the page was started in, and the folders outside it that fields may name."""

    cwd: Path
    allowed: tuple[Path, ...] = ()

    @property
    def outputs(self) -> Path:
        """Where runs are."""
        return self.cwd / OUTPUTS


def words_of(text: str, place: Place) -> list[str]:
    """The overrides in a text as a shell reads them. Raises Refused with all that a field may not say."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise Refused([Problem("overrides", NO_VALUE, f"cannot be read: {error}")]) from error
    found = [problem for word in words for problem in problems(word, place)]
    if found:
        raise Refused(found)
    return words


def problems(word: str, place: Place) -> Iterator[Problem]:
    """What keeps a word from being taken from the page."""
    key, equals, value = word.partition("=")
    bare = key.lstrip("+~")
    if not equals or key.startswith("-"):
        yield Problem(word, NO_VALUE, "is no override", "write key=value; flags are for the command line")
    elif bare.startswith("hydra") and not bare.startswith(HYDRA):
        yield Problem(bare, value, "is for the command line alone")
    elif "${" in word:
        yield Problem(bare, value, "is an interpolation", "write the value itself")
    else:
        for text in filter(None, SEPARATORS.split(value)):
            what = path_fault(text, place)
            if what is not None:
                yield Problem(bare, value, what, HERE)
                break


def path_fault(text: str, place: Place) -> str | None:
    """What is wrong with a text where it is read as a path, or None."""
    if ".." in re.split(r"[/\\]", text):
        return "leads out of its folder with .."
    if "\0" in text:
        return "is no path"
    inside = any(
        Path(os.path.normpath(text)).is_relative_to(folder) for folder in (place.cwd, *place.allowed)
    )
    return "is a path outside the page's folder" if ABSOLUTE.match(text) and not inside else None


def run_folder(name: str | None, place: Place) -> Path:
    """The folder of a run by its path from the page's folder. Raises Refused for any other folder."""
    if not name:
        raise Refused([Problem("run", NO_VALUE, "none is chosen", "choose one from the list")])
    folder = Path(os.path.normpath(place.cwd / name))
    if path_fault(name, place) or not folder.is_relative_to(place.outputs):
        raise Refused([Problem("run", name, f"is no run below {OUTPUTS}/", "choose one from the list")])
    if not (folder / MANIFEST).is_file():
        raise Refused([Problem("run", name, "is no run", "choose one from the list")])
    return folder


def new_name(name: str) -> str:
    """The name of a folder to be made below another. Raises Refused for what would not be one folder there."""
    if not re.fullmatch(r"\w[\w.+-]{0,99}", name.strip()):
        what = "is no name of a folder"
        raise Refused([Problem("name", name, what, "use letters, digits and . _ - +, at most 100")])
    return name.strip()


def merged(words: Sequence[str], more: Sequence[str]) -> list[str]:
    """Words with others added, each of which replaces an earlier one of the same key."""
    said = {word.partition("=")[0].lstrip("+") for word in more}
    return [*(word for word in words if word.partition("=")[0].lstrip("+") not in said), *more]
