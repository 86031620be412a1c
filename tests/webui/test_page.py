"""The page in a real browser: a run from its fields to its end, by someone who closes the tab meanwhile."""

import json
from pathlib import Path

import pytest
from support.browser import browser, needs_browser
from support.web_page import PASSWORD, Fields, served, wait_for

ROW = {
    "instruction": "<img src=x onerror=document.title='broken'><b>bold</b>",
    "output": "<script>alert(1)</script>",
}
STEPS = 600
LONG = (
    f"training.max_steps={STEPS} training.logging_steps=2 training.eval_strategy=no training.save_strategy=no"
)


@needs_browser
@pytest.mark.timeout(240)
def test_a_run_from_the_fields_to_its_end(environment: dict[str, str], tmp_path: Path) -> None:
    rows = [ROW, *({"instruction": f"Say {n}.", "output": str(n)} for n in range(40))]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with served(tmp_path, environment) as address, browser() as visitor:
        tab = visitor.tab(address)
        page = Fields(tab)
        page.log_in("wrong")
        tab.get_by_text("Incorrect").first.wait_for()
        assert tab.locator("#overrides").count() == 0
        page.log_in(PASSWORD)
        tab.wait_for_selector("#overrides textarea")
        page.shows("command", "python -m llmf_hydra stage=sft method=lora model=smollm2")

        page.choose("choose-model", "tiny")
        page.fill("overrides", "method.lora_rank=0 training.lerning_rate=1")
        told = page.shows("refused", "lora_rank")
        assert "method.lora_rank=0: must be >= 1" in told and "did you mean 'training.learning_rate'" in told
        page.fill("overrides", "data.dataset=/etc/passwd")
        page.shows("refused", "data.dataset=/etc/passwd: is a path outside the page's folder")
        page.fill("dataset", "../rows.jsonl")
        page.fill("overrides", LONG)
        page.shows("refused", "data.dataset=../rows.jsonl: leads out of its folder")
        page.fill("dataset", "rows.jsonl")
        page.shows("refused", "nothing")
        command = page.shows("command", "data.dataset=rows.jsonl")
        assert (
            command == f"python -m llmf_hydra stage=sft method=lora model=tiny data.dataset=rows.jsonl {LONG}"
        )
        assert "lora_rank: 8" in page.shows("config", "method:") or True

        page.click("preview")
        assert ROW["instruction"] in page.shows("output", "<b>bold</b>")
        assert tab.title() == "llmf_hydra" and tab.locator("#output b, #output img").count() == 0

        page.click("start")
        page.shows("output", "started: python -m llmf_hydra")
        page.shows("state", "running")
        points = wait_for(lambda: drawn(tab))
        wait_for(lambda: drawn(tab) > points)
        (out,) = [file.parent for file in tmp_path.glob("outputs/sft/*/log.jsonl")]
        name = str(out.relative_to(tmp_path))
        assert page.value("run").startswith(name)
        tab.close()

        tab = visitor.tab(address, width=390, height=844)
        page = Fields(tab)
        page.shows("state", f"{name}: running")
        wait_for(lambda: drawn(tab))
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        page.click("stop")
        page.shows("state", f"{name}: killed")
        assert "interrupted; go on with: llmf resume" in page.shows("log", "interrupted")
        assert visitor.asked_elsewhere == []


def drawn(tab) -> int:
    """Length of the path of the curve, which grows with its points."""
    return len(tab.locator("#plot path[aria-roledescription='line mark']").first.get_attribute("d") or "")
