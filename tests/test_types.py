"""Types say what a value is: how few annotations of the package are `Any`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import llmf_hydra

PACKAGE = Path(llmf_hydra.__file__).parent
MOST = 0.06  # of all annotations


def annotations(tree: ast.Module) -> Iterator[ast.expr]:
    """Those of arguments, returned values and variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns


def names(expression: ast.expr) -> set[str]:
    """The names in an annotation, those in quotes included."""
    found: set[str] = set()
    for node in ast.walk(expression):
        if isinstance(node, ast.Name | ast.Attribute):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node is not expression:
            found |= names(ast.parse(node.value, mode="eval").body) if _is_type(node.value) else set()
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        found |= names(ast.parse(expression.value, mode="eval").body)
    return found


def _is_type(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    return True


def aliases_of_any(tree: ast.Module) -> Iterator[str]:
    """Names that a module gives to `Any` itself: `Value = Any`, also within a union."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            parts = ast.unparse(node.value).replace("Optional[", "").replace("]", "").split("|")
            if "Any" in (part.strip() for part in parts):
                yield node.targets[0].id


def test_few_annotations_are_any() -> None:
    trees = [ast.parse(file.read_text(encoding="utf8")) for file in sorted(PACKAGE.rglob("*.py"))]
    loose = {"Any", *(alias for tree in trees for alias in aliases_of_any(tree))}
    every = [annotation for tree in trees for annotation in annotations(tree)]
    untyped = sum(bool(names(annotation) & loose) for annotation in every)
    assert len(every) > 1000
    assert untyped < MOST * len(every), (
        f"{untyped} of {len(every)} annotations are or contain Any: {untyped / len(every):.1%}, "
        f"and fewer than {MOST:.0%} may; give a real type (TypedDict, Protocol, Mapping[str, object])"
    )
