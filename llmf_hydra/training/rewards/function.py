"""A user's own reward: where the file of `my_module:my_function` lies, and the function in it. Without torch."""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmf_hydra.errors import Problem, TrainingFailed, did_you_mean


def file_of(function: str) -> Path | None:
    """The file of the module, beside the command or else where Python finds it; None where there is none."""
    module = function.partition(":")[0]
    path = Path.cwd().joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found is not None and found.origin and found.has_location else None


def problem(function: str, key: str) -> Problem | None:
    """What is wrong with the name of a function, found in the source of its module, which isn't run."""
    module, _, name = function.partition(":")
    file = file_of(function)
    if file is None and module.endswith(".py"):
        remedy = f"write {module.removesuffix('.py').replace('/', '.')}:{name}"
        return Problem(key, function, "names a file, where a module is due", remedy)
    if file is None:
        where = module.replace(".", "/")
        return Problem(
            key, function, f"there is no module {module}", f"put {where}.py where the command is started"
        )
    if _hides_another(module, file):
        what = f"{file} has the name of an installed module, which would be imported in its place"
        return Problem(key, function, what, "give yours another name")
    try:
        defined = _defined(ast.parse(file.read_bytes(), str(file)))
    except SyntaxError as error:
        return Problem(key, function, f"{file} line {error.lineno}: {error.msg}")
    if name in defined or "*" in defined:
        return None
    return Problem(key, function, f"{file} defines no {name}", did_you_mean(name, defined))


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


def load(function: str) -> Callable[..., Any]:
    """The function; its module may import those beside it. Raises TrainingFailed where it can't be imported."""
    module, _, name = function.partition(":")
    file = file_of(function)
    if file is None:
        raise TrainingFailed(f"rlhf.rewards: there is no module {module} for {function}")
    root = str(file.parents[module.count(".") + (file.name == "__init__.py")])
    if root not in sys.path:
        sys.path.append(root)  # last: a user's statistics.py must not be imported by a library
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise TrainingFailed(
            f"rlhf.rewards: {file} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if inspect.iscoroutinefunction(found) or not callable(found):
        raise TrainingFailed(
            f"rlhf.rewards: {function} is {type(found).__name__}, where a plain function is needed"
        )
    return found
