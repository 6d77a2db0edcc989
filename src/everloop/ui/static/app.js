// Draws the charts and keeps live parts polite; every page also works without it.
"use strict";

(function () {
  const charts = new Map();
  const refused = new Set();

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // As the pages write them: characters that turn the direction of text are named, not obeyed.
  window.asWritten = function (text) {
    return text.replace(/[\u202a-\u202e\u2066-\u2069]/g, function (found) { return "⟨U+" + found.charCodeAt(0).toString(16).toUpperCase() + "⟩"; });
  };

  function textOf(value) {
    return value == null ? "–" : String(Number(value.toPrecision(5)));
  }

  // A line down the plot where something changed, with its name at the top.
  function marker(series) {
    return {
      hooks: {
        draw: function (plot) {
          const context = plot.ctx;
          context.save();
          context.strokeStyle = colour("--good");
          context.fillStyle = colour("--good");
          context.lineWidth = devicePixelRatio;
          context.font = 11 * devicePixelRatio + "px system-ui, sans-serif";
          context.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
          context.textAlign = "left";
          let free = -Infinity;
          for (const mark of series.marks) {
            const x = plot.valToPos(mark.x, "x", true);
            context.beginPath();
            context.moveTo(x, plot.bbox.top);
            context.lineTo(x, plot.bbox.top + plot.bbox.height);
            context.stroke();
            const width = context.measureText(mark.label).width;
            if (x > free && x + width < plot.bbox.left + plot.bbox.width) {
              context.fillText(mark.label, x + 4 * devicePixelRatio, plot.bbox.top + 12 * devicePixelRatio);
              free = x + width + 8 * devicePixelRatio;
            }
          }
          context.restore();
        },
      },
    };
  }

  function draw(figure, series) {
    const place = figure.querySelector(".plot");
    const old = charts.get(figure);
    if (old) old.plot.destroy();
    place.textContent = "";
    if (series.x.length < 2) {
      place.textContent = "Too few points for a line.";
      return;
    }
    const axis = {
      stroke: colour("--quiet"),
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1 },
    };
    const first = Object.assign({}, axis);
    if (series.is_time) {
      const day = "{YYYY}-{MM}-{DD}";
      first.space = 88;
      first.values = [
        [86400, day, null, null, null, null, null, null, 1],
        [60, "{HH}:{mm}", "\n" + day, null, "\n" + day, null, null, null, 1],
        [1, "{HH}:{mm}:{ss}", "\n" + day, null, "\n" + day, null, null, null, 1],
      ];
    }
    const colours = ["--accent", "--warn", "--good", "--bad", "--quiet", "--ink"];
    const plot = new uPlot(
      {
        width: place.clientWidth,
        height: figure.classList.contains("tall") ? 260 : 180,
        tzDate: function (seconds) { return uPlot.tzDate(new Date(seconds * 1000), "UTC"); },
        scales: { x: { time: series.is_time } },
        axes: [first, Object.assign({ size: 56 }, axis)],
        series: [{ label: series.is_time ? "time" : "step", value: series.is_time ? "{YYYY}-{MM}-{DD} {HH}:{mm}" : undefined }].concat(
          series.lines.map(function (line, index) {
            return {
              label: line.label,
              stroke: colour(line.colour == null ? colours[index % colours.length] : "--c" + line.colour),
              width: 1.5,
              spanGaps: series.lines.length > 1,
              points: { show: series.x.length < 40 },
              value: function (_, value) { return textOf(value); },
            };
          })
        ),
        plugins: [marker(series)],
      },
      [series.x].concat(series.lines.map(function (line) { return line.values; })),
      place
    );
    charts.set(figure, { plot: plot, series: series });
  }

  function load(figure) {
    return fetch(figure.dataset.series, { credentials: "same-origin" })
      .then(function (answer) {
        if (answer.status >= 400 && answer.status < 500) refused.add(figure);
        if (!answer.ok) throw new Error(String(answer.status));
        return answer.json();
      })
      .then(function (series) { draw(figure, series); })
      .catch(function () {
        if (charts.has(figure)) return;
        const problem = document.createElement("p");
        problem.className = "problem";
        problem.textContent = "The points could not be read; reload the page.";
        figure.querySelector(".plot").replaceChildren(problem);
      });
  }

  function start(figure) {
    load(figure);
    const seconds = Number(figure.dataset.refresh || 0);
    if (seconds > 0) {
      setInterval(function () { if (!document.hidden && !refused.has(figure)) load(figure); }, seconds * 1000);
    }
  }

  function redraw() {
    for (const [figure, chart] of charts) draw(figure, chart.series);
  }

  const tab = document.querySelector(".tabs [aria-current]");
  if (tab) tab.scrollIntoView({ block: "nearest", inline: "center" });
  document.querySelectorAll(".chart[data-series]").forEach(start);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let waiting = 0;
  addEventListener("resize", function () {
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 150);
  });

  document.addEventListener("htmx:beforeRequest", function (event) {
    // Nobody looks, or somebody is reading with the keyboard inside: leave the page alone.
    const part = event.detail.elt;
    if (document.hidden || part.contains(document.activeElement)) event.preventDefault();
  });
  document.addEventListener("htmx:responseError", function (event) {
    // A refusal will not go away by asking again: show it as the page that it is.
    const status = event.detail.xhr.status;
    if (status >= 400 && status < 500) location.reload();
  });
  document.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") return;
    document.querySelectorAll("details.menu[open]").forEach(function (menu) { menu.open = false; });
  });
})();
