"""Group `job`: what is done with a config."""

import pytest
from support.parameter_runs import ROWS, Work, parameter


@parameter("job.name", "job.preview_rows")
def test_a_job_does_its_own(worked: Work, capsys: pytest.CaptureFixture[str]) -> None:
    trained = worked("train", {"training.max_steps": 1})
    assert (trained / "final").is_dir()
    checked = worked("check", {"job.name": "check"})
    assert (checked / "data.json").exists() and not (checked / "final").exists()
    assert "the check found nothing to refuse" in capsys.readouterr().out
    for count in (4, 2):
        previewed = worked(f"preview{count}", {"job.name": "preview", "job.preview_rows": count})
        assert not (previewed / "final").exists()
        text = (previewed / "preview.txt").read_text(encoding="utf8")
        assert text.count("»") == count < ROWS
