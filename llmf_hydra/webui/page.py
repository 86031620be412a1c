"""The page as a whole."""

from pathlib import Path

import gradio as gr

from llmf_hydra.webui.fields import Place
from llmf_hydra.webui.tabs.chat import Models, chat_tab
from llmf_hydra.webui.tabs.compare import compare_tab
from llmf_hydra.webui.tabs.monitor import Monitor
from llmf_hydra.webui.tabs.train import train_tab
from llmf_hydra.webui.tabs.use import use_tab

CSS = Path(__file__).with_name("page.css").read_text(encoding="utf8")
AT_ONCE = 8  # of the same kind of question, from all tabs


def theme() -> gr.themes.Base:
    """Fonts that are there already: the page loads nothing from elsewhere."""
    text = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
    code = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]
    return gr.themes.Default(font=text, font_mono=code)


def build(place: Place, models: Models) -> gr.Blocks:
    """The page for runs of this place; `models` holds what its visitors load for a chat."""

    def left(request: gr.Request) -> None:
        models.end(request.session_hash or "")

    with gr.Blocks(title="llmf_hydra", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(f"### llmf_hydra\nin `{place.cwd}`", elem_id="head")
        with gr.Tabs():
            with gr.Tab("Train"):
                monitor = Monitor(place)
                train_tab(page, place, monitor)
                gr.Markdown("#### Runs")
                monitor.lay_out()
            with gr.Tab("Runs & sweeps") as tab:
                compare_tab(page, tab, place)
            with gr.Tab("Chat") as tab:
                chat_tab(page, tab, place, models)
            with gr.Tab("Evaluate & export") as tab:
                use_tab(page, tab, place)
        page.unload(left)
        page.load(monitor.first, None, monitor.run, show_progress="hidden")
    return page.queue(default_concurrency_limit=AT_ONCE, api_open=False)
