"""What of git is recorded: the package's own changes, and of the user's repository none."""

import json
import subprocess
from pathlib import Path

from support.command_line import Cli

from llmf_hydra.runs import git

PASSWORD = "export PASSWORD=hunter2-secret"


def in_git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def repository(folder: Path, *files: str) -> str:
    """A repository with these files in one commit, whose hash is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    in_git(folder, "init", "-q")
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("first\n")
    in_git(folder, "add", "-A")
    in_git(folder, "commit", "-qm", "first")
    return in_git(folder, "rev-parse", "HEAD")


def test_of_the_users_repository_only_the_commit_and_whether_it_is_clean(cli: Cli, tmp_path: Path) -> None:
    commit = repository(tmp_path, ".envrc")
    (tmp_path / ".envrc").write_text(PASSWORD)
    done = cli("job=check", "stage=sft", "model=tiny", "hydra.run.dir=outputs/mine")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "outputs" / "mine" / "manifest.json").read_text()
    manifest = json.loads(text)
    assert "hunter2" not in text and manifest["repository"] == {"commit": commit, "clean": False}
    source = git.source()
    assert (manifest["git"] or {}).get("commit") == (source or {}).get("commit") != commit
    assert (
        done.stdout.splitlines()[0] == "check of sft, lora of builtin:tiny on demo_instruct -> outputs/mine"
    )

    in_git(tmp_path, "checkout", "-q", ".envrc")
    assert git.repository(tmp_path) == {"commit": commit, "clean": True}  # its own outputs are no change
    (tmp_path / "new.txt").touch()
    assert git.repository(tmp_path) == {"commit": commit, "clean": False}


def test_the_packages_own_changes_are_recorded_and_nothing_beside_them(tmp_path: Path) -> None:
    commit = repository(tmp_path, ".envrc", "package/__init__.py")
    (tmp_path / ".envrc").write_text(PASSWORD)
    (tmp_path / "package" / "__init__.py").write_text("changed\n")
    (tmp_path / "package" / "new.py").touch()
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "run").touch()
    source = git.source(tmp_path / "package")
    assert source is not None and source["commit"] == commit
    assert "+changed" in source["diff"] and "hunter2" not in source["diff"]
    assert [Path(name).name for name in source["untracked"]] == ["new.py"]


def test_a_package_installed_below_a_repository_is_no_part_of_it(tmp_path: Path) -> None:
    repository(tmp_path, "a.txt")
    installed = tmp_path / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert git.source(installed) is None
    assert git.repository(Path("/")) is None
