"""The command of the best trial, run from where it is read: it names all that the trial was composed from."""

import json
import shlex
from html import unescape
from pathlib import Path

import pytest
from support.command_line import Cli, log_of

SHORT = ("stage=sft", "data.max_samples=8", "data.val_size=0", "training.eval_strategy=no",
         "training.save_strategy=no", "training.max_steps=2", "training.logging_steps=1",
         "training.plot_loss=false")  # fmt: skip


@pytest.mark.slow
def test_the_best_command_keeps_the_folders_of_configs(cli: Cli, tmp_path: Path) -> None:
    for folder, content in (
        ("mine/method", "lora_rank: 3"),
        ("more/model", "model_name_or_path: builtin:tiny"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        base = "defaults: [lora]\n" if "method" in folder else ""
        (tmp_path / folder / "own.yaml").write_text(f"{base}{content}\n", encoding="utf8")
    flags = ["--config-path", "mine", "--config-dir", "more"]
    words = [*SHORT, "method=own", "model=own", "training.learning_rate=0.1,0.2", "hydra.sweep.dir=study"]
    done = cli("-m", *flags, *words)
    assert done.returncode == 0, done.stderr
    best = json.loads((tmp_path / "study" / "sweep.json").read_text(encoding="utf8"))["trials"][0]

    told = done.stdout.rstrip().splitlines()[-1].strip()
    shown = json.loads(cli("sweep", "show", "study", "--json").stdout)["best"]["repeat"]
    assert cli("sweep", "report", "study", "--open", "no").returncode == 0
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf8")
    assert told == shown and f"<pre>{told}</pre>" in unescape(page)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    once = cli(*shlex.split(told)[1:], "hydra.run.dir=once", cwd=elsewhere)
    assert once.returncode == 0, once.stderr
    assert log_of(elsewhere / "once") == log_of(Path(best["out"]))
