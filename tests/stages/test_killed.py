"""Stage by method, killed with SIGKILL at a random moment and resumed: the result of the run that nothing disturbed."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import log_of
from support.killed_runs import has_logged, is_writing, kill_when

from llmf_hydra.runs.checkpoints import PARTIAL

METHODS = ("lora", "freeze", "full")
STAGES = ("pt", "sft", "rm", "dpo", "kto", "ppo", "grpo")
COVERING = {
    ("pt", "lora"),
    ("sft", "full"),
    ("rm", "freeze"),
    ("dpo", "lora"),
    ("kto", "full"),
    ("ppo", "freeze"),
    ("grpo", "lora"),
}
EACH = [
    pytest.param(stage, method, marks=[] if (stage, method) in COVERING else pytest.mark.slow)
    for stage in STAGES
    for method in METHODS
]
STEPS, EVERY = 12, 3
WORDS = ["model=tiny", "data.max_samples=60", "data.val_size=8", "training.logging_steps=1", "training.eval_steps=4",
         f"training.save_steps={EVERY}", f"training.max_steps={STEPS}", "training.learning_rate=0.01",
         "training.per_device_train_batch_size=2", "training.save_total_limit=2",
         "training.plot_loss=false"]  # fmt: skip
PPO = ["rlhf.reward_model_type=full", "generation.max_new_tokens=8"]
# Two steps on each answer, three between checkpoints: one of two lies amid answers that are being trained on.
GRPO = ["rlhf.rewards=[regex:e.*e]", "rlhf.num_generations=2", "rlhf.num_iterations=2", "rlhf.beta=0.1",
        "generation.max_new_tokens=8"]  # fmt: skip
Llmf = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def llmf(environment: dict[str, str]) -> Llmf:
    """`llmf(folder, "stage=sft")` runs the command line there, to a good end."""

    def run(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run([sys.executable, "-m", "llmf_hydra", *words], cwd=folder, env=environment, text=True,
                              capture_output=True, check=False, timeout=240)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def reward(llmf: Llmf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model."""
    folder = tmp_path_factory.mktemp("reward")
    llmf(folder, "stage=rm", "method=full", *WORDS, "training.max_steps=2", "hydra.run.dir=reward")
    return folder / "reward" / "final"


@pytest.mark.parametrize(("stage", "method"), EACH)
def test_a_killed_run_goes_on_to_the_undisturbed_result(
    stage: str,
    method: str,
    llmf: Llmf,
    tmp_path: Path,
    environment: dict[str, str],
    request: pytest.FixtureRequest,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown where the test fails
    chance = random.Random(seed)
    words = [f"stage={stage}", f"method={method}", *WORDS]
    if stage == "ppo":
        words += [*PPO, f"rlhf.reward_model={request.getfixturevalue('reward')}"]
    if stage == "grpo":
        words += GRPO
    llmf(tmp_path, *words, "hydra.run.dir=whole")
    moment = chance.choice(
        [has_logged(chance.randint(1, STEPS - 3)), is_writing(EVERY * chance.randint(1, STEPS // EVERY - 1))]
    )
    killed = tmp_path / "killed"
    kill_when(moment, words, killed, environment, after=chance.choice([0, chance.uniform(0, 0.05)]))
    assert not (killed / "final").exists(), "it was killed too late"
    print(llmf(tmp_path, "resume", "killed").stdout)
    same(tmp_path / "whole", killed)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pissa", "oft", "loraplus"])
def test_a_killed_run_of_another_kind_of_adapter(
    method: str, llmf: Llmf, tmp_path: Path, environment: dict[str, str]
) -> None:
    words = ["stage=sft", f"method={method}", *WORDS]
    llmf(tmp_path, *words, "hydra.run.dir=whole")
    killed = tmp_path / "killed"
    kill_when(has_logged(random.SystemRandom().randint(4, STEPS - 3)), words, killed, environment)
    assert not (killed / "final").exists(), "it was killed too late"
    llmf(tmp_path, "resume", "killed")
    same(tmp_path / "whole", killed)
    for weights in (tmp_path / "whole" / "final").rglob("*.safetensors"):
        name = weights.relative_to(tmp_path / "whole")
        assert (killed / name).read_bytes() == weights.read_bytes(), name


def same(whole: Path, resumed: Path) -> None:
    """Assert that two runs left the same: log, weights, checkpoints."""
    assert log_of(resumed) == log_of(whole)
    for folder in ("final", f"checkpoint-{STEPS}"):
        names = sorted(file.name for file in (whole / folder).iterdir())
        assert sorted(file.name for file in (resumed / folder).iterdir()) == names
        weights = [name for name in names if name.endswith(".safetensors")]
        assert weights
        for name in weights:
            assert (resumed / folder / name).read_bytes() == (whole / folder / name).read_bytes(), name
    kept = [sorted(file.name for file in out.glob("checkpoint-*")) for out in (whole, resumed)]
    assert kept[0] == kept[1]
    assert not (resumed / PARTIAL).exists()


def test_a_run_killed_within_a_checkpoint_passes_it_over(
    llmf: Llmf, tmp_path: Path, environment: dict[str, str]
) -> None:
    words = ["stage=sft", *WORDS]
    killed = tmp_path / "killed"
    kill_when(is_writing(2 * EVERY), words, killed, environment)
    assert (killed / PARTIAL / f"checkpoint-{2 * EVERY}").is_dir(), "the checkpoint was finished"
    assert not (killed / f"checkpoint-{2 * EVERY}").exists()
    said = llmf(tmp_path, "resume", "killed").stdout.splitlines()
    assert said[0] == "going on from checkpoint-3; checkpoint-6 is passed over: it was never finished"
    llmf(tmp_path, *words, "hydra.run.dir=whole")
    same(tmp_path / "whole", killed)
