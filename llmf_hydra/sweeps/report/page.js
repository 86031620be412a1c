"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  const narrow = window.innerWidth <= 800;
  const grid = { gridcolor: of("--line"), zerolinecolor: of("--line"), linecolor: of("--line") };
  return {
    ...layout,
    margin: layout.margin || { l: 50, r: 10, t: 30, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: of("--ink"), size: narrow ? 11 : 12, family: "system-ui, sans-serif" },
    xaxis: { ...grid, ...layout.xaxis },
    yaxis: { ...grid, ...layout.yaxis },
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: of("--soft"), activecolor: of("--ink") },
    hoverlabel: { align: "left" },
  };
}

function draw() {
  for (const [id, figure] of Object.entries(figures)) {
    const config = { responsive: true, displaylogo: false, displayModeBar: "hover" };
    Plotly.react(id, figure.data, themed(figure.layout), config);
  }
}

draw();
dark.addEventListener("change", draw);
