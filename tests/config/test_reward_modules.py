"""A reward's module beside the user's configs is named by its file; one beside the command is left as it is."""

from pathlib import Path
from typing import Any

import pytest

from llmf_hydra.config.compose import CommandLine, typed
from llmf_hydra.config.rewards.modules import located


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a folder `conf` with an experiment, and one in which commands are started."""
    for name in ("conf/experiment", "work"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("conf/beside", "conf/experiment/inside", "above", "work/here", "conf/here"):
        (tmp_path / f"{name}.py").write_text("def score(prompts, completions): ...\n")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_modules_are_found_beside_configs(project: Path) -> None:
    conf = [project / "none", project / "conf"]
    given: list[Any] = ["python:beside:score", {"kind": "python", "function": "inside:score", "weight": 2},
                        "python:above:score", "python:here:score", "python:nowhere:score", "numeric",
                        "python:some.module:score", {"kind": "python"}, 3]  # fmt: skip
    assert located(given, conf) == [
        f"python:{project}/conf/beside.py:score",
        {"kind": "python", "function": f"{project}/conf/experiment/inside.py:score", "weight": 2},
        f"python:{project}/above.py:score",
        *given[3:],
    ]
    assert located("python:beside:score", conf) == f"python:{project}/conf/beside.py:score"
    assert located(None, conf) is None
    assert located("python:beside:score", []) == "python:beside:score"


def test_what_lies_below_the_command_is_named_from_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert located("python:beside:score", [project / "conf"]) == "python:conf/beside.py:score"


def test_the_folder_of_a_command_line_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of --config-dir, and the user's own conf folder."""
    line = ["stage=grpo", "rlhf.rewards=[python:beside:score]"]
    wanted = [f"python:{project}/conf/beside.py:score"]
    assert typed(CommandLine(["--config-dir", "../conf", *line]).compose()).rlhf.rewards == wanted
    assert typed(CommandLine(line).compose()).rlhf.rewards == ["python:beside:score"]
    monkeypatch.setenv("LLMF_CONF", str(project / "conf"))
    assert typed(CommandLine(line).compose()).rlhf.rewards == wanted
