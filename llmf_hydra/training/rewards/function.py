"""A user's own reward, `my_module:my_function` or `my_file.py:my_function`: where it lies, and the function itself.

Without torch.
"""

import ast
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from llmf_hydra.config.rewards.items import KEY
from llmf_hydra.errors import Problem, Refused, did_you_mean

KIND = "python"
SOURCE = ".py"
OWN = ("prompts", "completions")  # arguments that no column may take


def file_of(function: str) -> Path | None:
    """The file that is named, or that of the module, beside the command or else where Python finds it; None where there
    is none."""
    module = function.rpartition(":")[0]
    if module.endswith(SOURCE):
        file = Path(module).expanduser().absolute()
        return file if file.is_file() else None
    path = Path.cwd().joinpath(*module.split("."))
    for file in (path.with_suffix(SOURCE), path / "__init__.py"):
        if file.is_file():
            return file
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    origin = found.origin if found is not None and found.has_location else None
    return Path(origin) if origin is not None and origin.endswith(SOURCE) else None


def problem(function: str) -> Problem | None:
    """What is wrong with the name of a function, found in the source of its module, which isn't run."""
    module, _, name = function.rpartition(":")
    file = file_of(function)
    if file is None:
        return _no_file(function)
    if not module.endswith(SOURCE) and _hides_another(module, file):
        what = f"{file} has the name of an installed module, which would be imported in its place"
        remedy = f"give yours another name, or name the file: {KIND}:{os.path.relpath(file)}:{name}"
        return Problem(KEY, function, what, remedy)
    try:
        defined = _defined(ast.parse(file.read_bytes(), str(file)))
    except SyntaxError as error:
        return Problem(KEY, function, f"{file} line {error.lineno}: {error.msg}")
    except (OSError, ValueError, RecursionError) as error:
        return Problem(KEY, function, f"{file} cannot be read: {error}")
    if name in defined or "*" in defined:
        return None
    return Problem(KEY, function, f"{file} defines no {name}", did_you_mean(name, defined))


def _no_file(function: str) -> Problem:
    """The refusal of a function whose file isn't there."""
    module, _, name = function.rpartition(":")
    if module.endswith(SOURCE):
        return Problem(KEY, function, f"there is no file {Path(module).expanduser().absolute()}")
    if module.partition(".")[0] in sys.stdlib_module_names:
        return Problem(KEY, function, f"{module} is Python's own", "name a function of yours")
    where = f"{module.replace('.', '/')}{SOURCE}"
    return Problem(KEY, function, f"there is no module {module}",
                   f"put {where} where the command is started, or name the file: "
                   f"{KIND}:path/to/{where}:{name}")  # fmt: skip


def _hides_another(module: str, file: Path) -> bool:
    """Whether Python would find another module than the file by that name."""
    top = module.partition(".")[0]
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if found is None:
        return False
    root = file.parents[module.count(".") + (file.name == "__init__.py")]
    return found.origin is None or not Path(found.origin).is_relative_to(root)


def _defined(tree: ast.Module) -> set[str]:
    """The names that a module has at its top, also within `if` and `try`; `*` where an import may bring any."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            continue  # what stands in it is no name of the module
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom | ast.Import):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


@dataclass(frozen=True)
class Function:
    """A user's function, and the arguments that it has."""

    called: Callable[..., Any]
    names: frozenset[str]
    needed: tuple[str, ...]  # columns that have no default
    every: bool  # it takes all columns

    @classmethod
    def load(cls, function: str) -> Self:
        """The function; its module may import those beside it. Raises Refused where it can't be called."""
        found = _imported(function)
        what, remedy = "", "define it as def score(prompts, completions, **columns)"
        if inspect.isclass(found) or inspect.iscoroutinefunction(found) or not callable(found):
            raise _refused(function, f"is {_kind(found)}, where a plain function is due", remedy)
        try:
            known = inspect.signature(found).parameters.values()
        except (TypeError, ValueError) as error:
            raise _refused(function, "doesn't say what arguments it takes", remedy) from error
        every = any(one.kind is one.VAR_KEYWORD for one in known)
        named = [one for one in known if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        names = frozenset(one.name for one in named)
        if any(one.kind is one.POSITIONAL_ONLY and one.default is one.empty for one in known):
            what = "takes arguments by their place, and gets them by name"
        elif "completions" not in names and not every:
            what = "takes no argument completions"
        if what:
            raise _refused(function, what, remedy)
        needed = tuple(one.name for one in named if one.default is one.empty and one.name not in OWN)
        return cls(found, names, needed, every)

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> Any:
        """What it returns for some answers, of whose rows it gets the columns that it asks for, as lists."""
        brought = dict.fromkeys(name for row in rows for name in row if name not in OWN)
        asked = [name for name in (*self.needed, *brought) if self.every or name in self.names]
        columns = {name: [row.get(name) for row in rows] for name in asked}
        own = {"prompts": list(prompts), "completions": list(completions)}
        given = {name: value for name, value in own.items() if self.every or name in self.names}
        return self.called(**given, **columns)


def _imported(function: str) -> Any:
    module, _, name = function.rpartition(":")
    file = file_of(function)
    if file is None:
        raise _refused(function, f"there is no {module}")
    named = module.endswith(SOURCE)
    root = file.parent if named else file.parents[module.count(".") + (file.name == "__init__.py")]
    if str(root) not in sys.path:
        sys.path.append(str(root))  # last: a user's statistics.py must not be imported by a library
    try:
        return getattr(_of_file(file) if named else importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise _refused(function, f"{file} cannot be imported: {type(error).__name__}: {error}") from error


def _kind(found: Any) -> str:
    if inspect.isclass(found):
        return "a class"
    return "an async function" if inspect.iscoroutinefunction(found) else f"of type {type(found).__name__}"


def _refused(function: str, what: str, remedy: str = "") -> Refused:
    return Refused([Problem(KEY, function, what, remedy)])


def _of_file(file: Path) -> ModuleType:
    """The module in a file, under the file's own path: two may be called alike, or like one that is installed."""
    name = str(file)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None  # it ends with .py
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
