"""Imports go down only: a short walk over the syntax trees, nothing is imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

import llmf_hydra
from llmf_hydra.config.choices import STAGES

PACKAGE = Path(llmf_hydra.__file__).parent
ORDER = (  # from the ground up; rooms of one line are on one floor and don't know each other
    "errors paths optional terminal",
    "config",
    "runs",
    "checks",
    "data models methods optimizers tracking",
    "training",
    "stages sweeps serve comparison evaluation export webui",
    "jobs",
    "refusals",
    "cli launch worker __main__",
)
FLOORS = {"": 0} | {room: floor for floor, rooms in enumerate(ORDER) for room in rooms.split()}
APART = ("data", "models", "methods", "optimizers", "tracking")  # they meet as arguments above
NO_TORCH = (
    "errors",
    "paths",
    "optional",
    "config",
    "runs",
    "checks",
    "refusals",
    "launch",
    "__main__",
    "sweeps",
    "comparison",
    "webui",
)
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "wandb", "mlflow", "accelerate", "matplotlib"}
MOST_FILES = 20  # of one folder


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
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
        ):
            yield _named(node.args[0]), False


def _named(name: ast.expr) -> str:
    """The beginning of the module that `import_module` is given, as far as it stands in the code."""
    if isinstance(name, ast.JoinedStr):
        name = name.values[0]
    return name.value.rstrip(".") if isinstance(name, ast.Constant) and isinstance(name.value, str) else ""


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


def test_rooms_of_one_floor_do_not_know_each_other() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, file in modules()
        for name, _ in imports(file)
        if (other := ours(name)) is not None
        and room(module) in APART
        and room(other) in APART
        and room(other) != room(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_folder_holds_too_many_files() -> None:
    counts = {folder: len(list(folder.glob("*.py"))) for folder in PACKAGE.rglob("*") if folder.is_dir()}
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_stages_do_not_know_each_other() -> None:
    stages = set(STAGES)
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
