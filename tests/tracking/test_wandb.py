"""wandb, offline: what its own objects and the files of a run hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.wandb_files import records

from llmf_hydra.tracking.contract import RunInfo
from llmf_hydra.tracking.open import named, open_trackers
from llmf_hydra.tracking.wandb import WandbTracker

KEY = "0123456789abcdef" * 3


def run_record(out: Path) -> Any:
    return next(record.run for record in records(out) if record.HasField("run"))


def test_without_a_key_a_run_is_whole_on_disk(make_tracking, make_info, capfd):
    info = make_info(
        params={"rlhf.pref_beta": 0.1, "stage.name": "dpo"},
        tags={"stage": "dpo", "model": "m" * 100},
        git={"commit": "abc123", "dirty": "true"},
        sweep="dpo/sweep",
    )
    plot = info.out / "training_loss.png"
    plot.write_bytes(b"picture")
    tracking = make_tracking(wandb=True, project="my-project", run_name="my run", wandb_entity="my-team")
    with open_trackers(tracking, info) as trackers:
        trackers.log({"loss": 0.7, "rewards/accuracies": 0.5}, 10)
        trackers.log({"loss": 0.6}, 20)
        trackers.attach(plot)

    run = run_record(info.out)
    assert (run.project, run.display_name, run.entity) == ("my-project", "my run", "my-team")
    assert (run.run_group, run.job_type, run.git.commit) == ("dpo/sweep", "trial", "abc123")
    assert list(run.tags) == ["stage:dpo", "model:" + "m" * 58]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (config["rlhf.pref_beta"], config["stage.name"]) == (0.1, "dpo")
    assert config["git"] == {"commit": "abc123", "dirty": "true"}
    history = [
        {item.nested_key[0] or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records(info.out)
        if record.HasField("history")
    ]
    assert [(row["_step"], row["loss"]) for row in history] == [(10, 0.7), (20, 0.6)]
    assert [record.exit.exit_code for record in records(info.out) if record.HasField("exit")] == [0]
    (kept,) = info.out.glob("wandb/offline-run-*/files/training_loss.png")
    assert kept.read_bytes() == b"picture"
    assert capfd.readouterr() == ("", "")


def test_a_run_that_fails_is_marked_and_names_come_from_the_defaults(make_tracking, make_info):
    info = make_info()
    with pytest.raises(ValueError, match="a bad batch"), open_trackers(make_tracking(wandb=True), info):
        raise ValueError("a bad batch")
    run = run_record(info.out)
    assert (run.project, run.display_name, run.entity, run.run_group) == ("llmf_hydra", "run1", "", "")
    assert [record.exit.exit_code for record in records(info.out) if record.HasField("exit")] == [1]


def test_disabled_it_leaves_nothing(make_tracking, make_info):
    info = make_info()
    with open_trackers(make_tracking(wandb=True, wandb_disabled=True), info) as trackers:
        trackers.log({"loss": 0.7}, 1)
    assert sorted(file.name for file in info.out.iterdir()) == ["log.jsonl", "metrics.json"]


@pytest.mark.parametrize(("key", "mode"), [(None, "offline"), (KEY, "online")])
def test_a_key_is_wandbs_and_goes_online(make_tracking, make_info, key, mode):
    settings = WandbTracker(make_tracking(wandb=True, wandb_api_key=key)).settings(make_info())
    assert (settings.api_key, settings.mode) == (key, mode)


def test_a_key_is_not_written_to_disk(make_tracking, make_info, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")  # a user's own word, which counts with a key too
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    info = make_info()
    with open_trackers(make_tracking(wandb=True, wandb_api_key=KEY), info) as trackers:
        trackers.log({"loss": 0.7}, 1)
    assert run_record(info.out).project == "llmf_hydra"
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 3
    assert [file for file in written if KEY.encode() in file.read_bytes()] == []


def test_a_config_of_another_value_is_another_setting(make_tracking, make_info):
    info: RunInfo = make_info(sweep="s")
    one, two = make_tracking(), make_tracking(project="p", run_name="n", wandb_entity="e")
    settings = [WandbTracker(tracking).settings(named(info, tracking)) for tracking in (one, two)]
    assert [(s.project, s.run_name, s.entity) for s in settings] == [
        ("llmf_hydra", "run1", None),
        ("p", "n", "e"),
    ]
    assert {s.run_group for s in settings} == {"s"}
