"""Imports go down only: a short walk over the syntax trees, nothing is imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

import llmf_hydra

PACKAGE = Path(llmf_hydra.__file__).parent
# The longest prefix that fits a module decides its floor.
FLOORS = {
    "errors": 0, "paths": 0, "optional": 0, "interrupt": 0, "runs": 0, "ranks": 0,
    "config": 1,
    "manifest": 2, "checkpoint": 2, "data": 2, "models": 2, "methods": 2, "optimizers": 2, "tracking": 2,
    "requirements": 3, "stages": 3, "serve": 3, "sweeps": 3,
    "jobs": 4,
    "process": 5, "launch": 5, "resume": 5, "worker": 5, "__main__": 5, "": 0,
}  # fmt: skip
ROOMS = ("data", "models", "methods", "optimizers", "tracking")  # of floor 2: they meet as arguments above it
NO_TORCH = (
    "errors",
    "paths",
    "optional",
    "interrupt",
    "runs",
    "ranks",
    "config",
    "manifest",
    "requirements",
    "process",
    "launch",
    "resume",
    "__main__",
    "sweeps",
)
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "wandb", "mlflow", "accelerate", "matplotlib"}


def modules() -> Iterator[tuple[str, Path]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Each imported module of ours or others, and whether the import stands at the file's top."""
    tree = ast.parse(file.read_text(encoding="utf8"))
    top = set(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inside = PACKAGE.joinpath(*f"{node.module}.{alias.name}".split(".")[1:])
                is_module = node.module.startswith("llmf_hydra") and (
                    inside.is_dir() or inside.with_suffix(".py").exists()
                )
                yield (f"{node.module}.{alias.name}" if is_module else node.module), node in top


def room(module: str) -> str:
    return module.split(".")[0]


def ours(name: str) -> str | None:
    return name.removeprefix("llmf_hydra").lstrip(".") if name.split(".")[0] == "llmf_hydra" else None


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module, _ in modules()} <= set(FLOORS)


def test_imports_go_down_only() -> None:
    wrong = [
        f"{module} (floor {FLOORS[room(module)]}) imports {other} (floor {FLOORS[room(other)]})"
        for module, file in modules()
        for name, _ in imports(file)
        if (other := ours(name)) is not None and FLOORS[room(other)] > FLOORS[room(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_of_floor_two_do_not_know_each_other() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, file in modules()
        for name, _ in imports(file)
        if (other := ours(name)) is not None
        and room(module) in ROOMS
        and room(other) in ROOMS
        and room(other) != room(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_stages_do_not_know_each_other() -> None:
    stages = {"pt", "sft", "rm", "ppo", "dpo", "kto"}
    wrong = [
        f"{module} imports {other}"
        for module, file in modules()
        for name, _ in imports(file)
        if (other := ours(name)) is not None
        and room(module) == "stages"
        and room(other) == "stages"
        and other.rpartition(".")[2] in stages
    ]
    assert not wrong, "\n".join(wrong)


def test_the_lower_floors_import_nothing_heavy_at_their_top() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, file in modules()
        if room(module) in NO_TORCH
        for name, at_top in imports(file)
        if at_top and name.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_imports() -> None:
    graph = {
        module: {
            other
            for name, at_top in imports(file)
            if at_top and (other := ours(name)) is not None and other != module
        }
        for module, file in modules()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())
