"""Run folders: claimed once, listed rightly, and their records never half written."""

import json
import os
import socket
import threading
from pathlib import Path

import pytest
from support.command_line import Cli

from llmf_hydra.errors import Refused
from llmf_hydra.runs import folder as runs
from llmf_hydra.runs import listing


def test_of_many_that_claim_a_folder_one_gets_it(tmp_path: Path) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def claim(number: int) -> None:
        barrier.wait()
        try:
            runs.create(tmp_path / "run", f"seed: {number}\n", {"by": number})
            outcomes.append(str(number))
        except Refused:
            outcomes.append("refused")

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("refused") == 7
    (winner,) = [outcome for outcome in outcomes if outcome != "refused"]
    assert (tmp_path / "run" / "config.yaml").read_text() == f"seed: {winner}\n"
    assert runs.read_manifest(tmp_path / "run")["by"] == int(winner)


def test_only_what_a_killed_launcher_left_is_taken_away(tmp_path: Path) -> None:
    ours, config = tmp_path / "ours", "seed: 1\nstage: dpo\n"
    ours.mkdir()
    (ours / "config.yaml").write_text(config[:9])
    (ours / ".manifest.json.x1").touch()
    runs.clear_half_made(ours, config)
    assert list(ours.iterdir()) == []
    for name, held in (
        ("other", {"config.yaml": "seed: 2\n"}),
        ("more", {"config.yaml": config, "notes": ""}),
    ):
        (tmp_path / name).mkdir()
        for file, text in held.items():
            (tmp_path / name / file).write_text(text)
        runs.clear_half_made(tmp_path / name, config)
        assert {file.name: file.read_text() for file in (tmp_path / name).iterdir()} == held


def test_a_running_run_whose_process_is_gone_was_killed(tmp_path: Path) -> None:
    mine = {"status": "running", "host": socket.gethostname(), "pid": os.getpid(),
            "pid_started": runs.process_identity(os.getpid())}  # fmt: skip
    assert runs.status(mine) == "running"
    assert runs.status({**mine, "pid_started": "1"}) == "killed"  # the pid was given to another process
    assert runs.status({**mine, "pid": 2**22 + 1}) == "killed"
    assert (
        runs.status({**mine, "host": "elsewhere", "pid_started": "1"}) == "running"
    )  # can't be known from here
    assert runs.status({**mine, "status": "done", "pid_started": "1"}) == "done"


def test_runs_are_found_in_the_order_they_began(tmp_path: Path) -> None:
    for number, objective in enumerate([None, {"name": "eval_loss", "value": 0.25}]):
        runs.create(tmp_path / f"{9 - number}", "", {"objective": objective, "created": f"2026-01-0{number + 1}",
                    "started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T01:02:03+00:00"})  # fmt: skip
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "manifest.json").write_text("{")
    found = list(listing.find(tmp_path))
    assert [row.out.name for row in found] == ["9", "8"]
    assert [row.objective for row in found] == [None, 0.25]
    assert {runs.duration(row.manifest) for row in found} == {"1:02:03"}


def test_a_run_may_only_write_to_a_new_or_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "log.jsonl").write_text("the user's own")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for folder, part in (
        (tmp_path / "mine", "holds files already (log.jsonl)"),
        (tmp_path / "file" / "run", "is a file"),
        (Path("/"), "is no folder for one run"),
        (Path.home(), "is no folder for one run"),
    ):
        with pytest.raises(Refused) as refused:
            runs.check_free(folder, "hydra.run.dir")
        assert part in str(refused.value) and str(refused.value).startswith("hydra.run.dir=")
    for free in ("empty", "new/run"):
        runs.check_free(tmp_path / free, "hydra.run.dir")
    runs.check_free(tmp_path / "mine", "hydra.run.dir", apart_from=["log.jsonl"])


def test_only_an_empty_folder_of_this_command_is_removed(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    born = (tmp_path / "old").stat().st_ctime
    runs.remove_empty(tmp_path / "old", since=born + 1)
    assert (tmp_path / "old").is_dir()
    runs.remove_empty(tmp_path / "old", since=born)
    assert not (tmp_path / "old").exists()


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    runs.write_json(file, {"status": "created"})

    class Unwritable:
        def __str__(self) -> str:
            raise ValueError

    with pytest.raises(ValueError):
        runs.write_json(file, {"status": Unwritable()})
    assert json.loads(file.read_text()) == {"status": "created"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.json"]


def test_a_named_folder_stays_the_users(cli: Cli, tmp_path: Path) -> None:
    """Refused by the launcher or by the worker: an empty folder stays, one that was made for the run goes."""
    (tmp_path / "mine").mkdir()
    for words in (["data.cutoff_len=1"], ["method.lora_rank=0"]):
        for folder in ("mine", "a/new/one"):
            refused = cli("model=tiny", "stage=rm", *words, f"hydra.run.dir={folder}")
            assert refused.returncode == 2, refused.stderr
            assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
            assert list((tmp_path / "mine").iterdir()) == []
    (tmp_path / "mine" / "log.jsonl").write_text("not a log")
    occupied = cli("model=tiny", "hydra.run.dir=mine")
    assert occupied.returncode == 2 and "hydra.run.dir=" in occupied.stderr and "log.jsonl" in occupied.stderr
    assert (tmp_path / "mine" / "log.jsonl").read_text() == "not a log"
