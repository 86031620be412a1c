"""Which source files read a parameter: found by walking the package's own syntax trees, not by a list.

`cfg.rlhf.pref_beta` is a read of `rlhf.pref_beta`; so is `options.pref_beta` where `options` is annotated
with the group's class, `rlhf.pref_beta` after `rlhf = cfg.rlhf`, and `self._rlhf.pref_beta`. A property of
the group's class that reads `self.lora_alpha` hands the parameter on: who reads the property reads the
parameter. The rules do not count: they compare values and act on nothing.
"""

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmf_hydra.config.schema import GROUPS, Entry
from llmf_hydra.paths import PACKAGE

_GROUP_OF_CLASS = {owner.__name__: group for group, owner in GROUPS.items()}
_DECLARATIONS = {f"config/groups/{group}.py": group for group in GROUPS}
_NOT_READERS = "checks/"


def readers(entry: Entry) -> list[str]:
    """The files of the package, relative to it, that read the parameter, in alphabetical order."""
    return sorted(_files(entry.key))


def _files(key: str) -> set[str]:
    """The files that read a key, or a property that is derived from it."""
    return _reads()[key].union(*(_files(derived) for derived in _derived()[key]))


@functools.cache
def _reads() -> Mapping[str, set[str]]:
    """`group.attribute` -> the files that read it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        if file not in _DECLARATIONS and (not file.startswith(_NOT_READERS) or file == "checks/packages.py"):
            for key in reads_of(path):
                found[key].add(file)
    return found


def reads_of(path: Path) -> Iterator[str]:
    """The `group.attribute` that one file reads, repeated as often as it does."""
    return _walk(ast.parse(path.read_text(encoding="utf-8")), {})


def _walk(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    """Reads under a node; `names` says which local names hold a group, and is the scope's own."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        names = names | _annotated(node.args)
    if isinstance(node, ast.Assign):
        names.update(_assigned(node))
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        group = _group_of(node.value, names)
        if group is not None:
            yield f"{group}.{node.attr}"
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, names)


def _group_of(node: ast.AST, names: Mapping[str, str]) -> str | None:
    """The group that an expression holds: `cfg.rlhf`, or a local name that is known to hold one."""
    if isinstance(node, ast.Attribute):
        return _named_group(node)
    return names.get(node.id) if isinstance(node, ast.Name) else None


def _named_group(node: ast.Attribute) -> str | None:
    name = node.attr.removeprefix("_")  # `self._tracking` is what an object keeps of `cfg.tracking`
    return name if name in GROUPS else None


def _annotated(args: ast.arguments) -> dict[str, str]:
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    annotated = {arg.arg: arg.annotation.id for arg in every if isinstance(arg.annotation, ast.Name)}
    return {name: _GROUP_OF_CLASS[cls] for name, cls in annotated.items() if cls in _GROUP_OF_CLASS}


def _assigned(node: ast.Assign) -> dict[str, str]:
    """The local names that `rlhf = cfg.rlhf` or `data, model = cfg.data, cfg.model` give to groups."""
    pairs: list[tuple[ast.expr, ast.expr]] = []
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs += zip(target.elts, node.value.elts, strict=False)
        else:
            pairs.append((target, node.value))
    return {
        target.id: group
        for target, value in pairs
        if isinstance(target, ast.Name)
        and isinstance(value, ast.Attribute)
        and (group := _named_group(value))
    }


@functools.cache
def _derived() -> Mapping[str, set[str]]:
    """Parameter -> the properties of its own group that read it, as `group.property`."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for file, group in _DECLARATIONS.items():
        for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for name in _of_self(node):
                    found[f"{group}.{name}"].add(f"{group}.{node.name}")
    return found


def _of_self(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr
