// Metrics that were logged once: a bar for each run, below the charts of those that have lines.
"use strict";

(function () {
  const MOST = 24;

  function element(tag, attributes, text) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    if (text != null) made.textContent = text;
    return made;
  }

  function numbers(runs, key) {
    return runs.map(function (run) { return Object.hasOwn(run.metrics, key) ? Number(run.metrics[key]) : NaN; });
  }

  function figure(runs, key, order) {
    const values = numbers(runs, key);
    const finite = values.filter(Number.isFinite);
    const [low, high] = [Math.min(0, ...finite), Math.max(0, ...finite)];
    const made = element("figure", { class: "chart", "data-key": key });
    made.append(element("figcaption", {}, asWritten(key)));
    const list = element("ul", { class: "bars" });
    runs.forEach(function (run, index) {
      if (!Object.hasOwn(run.metrics, key)) return;
      const row = element("li", { title: (run.name || run.id) + ": " + run.metrics[key] });
      const bar = element("span", { class: "bar c" + (order.indexOf(run.id) % 10) });
      const value = values[index];
      if (Number.isFinite(value) && high > low) {
        bar.style.marginLeft = ((Math.min(value, 0) - low) / (high - low)) * 100 + "%";
        bar.style.width = (Math.abs(value) / (high - low)) * 100 + "%";
      }
      const track = element("span", { class: "track" });
      track.append(bar);
      row.append(element("bdi", { class: "clip" }, asWritten(run.name || run.id.slice(-8))), track, element("span", { class: "n" }, Number.isFinite(value) ? String(Number(value.toPrecision(4))) : run.metrics[key]));
      list.append(row);
    });
    made.append(list);
    return made;
  }

  // The board knows which metrics have lines, and tells it once it has read their names.
  function follow(board) {
    board.addEventListener("board:names", function (event) {
      const lined = new Set(event.detail.keys);
      const order = event.detail.runs;
      fetch(board.dataset.single, { credentials: "same-origin" })
        .then(function (answer) { return answer.ok ? answer.json() : { items: [] }; })
        .then(function (found) {
          const runs = found.items.filter(function (run) { return order.includes(run.id); });
          const keys = [...new Set(runs.flatMap(function (run) { return Object.keys(run.metrics); }))]
            .filter(function (key) { return !lined.has(key) && !key.startsWith("system/") && numbers(runs, key).some(Number.isFinite); })
            .sort();
          if (!keys.length) return;
          const part = element("details", { class: "singles" });
          part.append(element("summary", {}, keys.length + (keys.length === 1 ? " metric was" : " metrics were") + " logged once"));
          part.addEventListener("toggle", function () {
            if (!part.open || part.children.length > 1) return;
            const grid = element("div", { class: "charts" });
            grid.append(...keys.slice(0, MOST).map(function (key) { return figure(runs, key, order); }));
            part.append(grid);
            if (keys.length > MOST) part.append(element("p", { class: "quiet small" }, "The first " + MOST + " are drawn; the table has all of them."));
          });
          board.append(part);
          part.open = !lined.size || keys.length <= 3;
        })
        .catch(function () { /* the table and the axes have these numbers, too */ });
    });
  }

  document.querySelectorAll(".board[data-single]").forEach(follow);
})();
