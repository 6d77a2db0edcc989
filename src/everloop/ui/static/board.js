// Charts of many runs: one legend, one set of switches, and lines that go on while runs do.
"use strict";

(function () {
  const PALETTE = 10;
  const AT_ONCE = 6; // charts asked for together
  const REFRESH_MS = 3000;
  const VIEWPORT = 1000;

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function short(value) {
    if (value == null) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-3 ? value.toExponential(3) : String(Number(value.toPrecision(5)));
  }

  function seconds(value) {
    const sign = value < 0 ? "-" : "";
    const whole = Math.abs(value);
    if (whole < 60) return sign + Number(whole.toPrecision(3)) + " s";
    if (whole < 3600) return sign + Math.floor(whole / 60) + " min " + Math.round(whole % 60) + " s";
    return sign + Math.floor(whole / 3600) + " h " + Math.round((whole % 3600) / 60) + " min";
  }

  // Exponential smoothing that weighs by the distance on the x axis, as Weights & Biases does it,
  // so that a thinned-out line is smoothed like the whole one. The start is debiased (Kingma and Ba).
  function smoothed(x, y, amount) {
    const weight = Math.min(Math.sqrt(amount), 0.999);
    const range = x[x.length - 1] - x[0] || 1;
    let sum = 0;
    let total = 0;
    let before = x[0];
    return y.map(function (value, index) {
      if (value == null) return null;
      const decay = Math.pow(weight, ((x[index] - before) / range) * VIEWPORT);
      before = x[index];
      sum = sum * decay + value;
      total = total * decay + 1;
      return sum / total;
    });
  }

  function element(tag, attributes, text) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    if (text != null) made.textContent = text;
    return made;
  }

  function Board(root) {
    const plotAt = root.dataset.plot;
    const wanted = root.dataset.runs.split(" ").filter(Boolean);
    const grid = root.querySelector(".charts");
    const legend = root.querySelector(".legend");
    const controls = root.querySelector(".controls");
    const cards = new Map();
    const hidden = new Set();
    let runs = [];
    let lit = null;
    let failed = 0;
    let turn = 0;
    const sync = uPlot.sync("board");
    const settings = readSettings();

    function readSettings() {
      const given = new URLSearchParams(location.hash.slice(1));
      return {
        axis: given.get("axis") || "step",
        smooth: Number(given.get("smooth") || 0),
        logx: given.get("logx") === "1",
        logy: given.get("logy") === "1",
        find: given.get("find") || "",
      };
    }

    function keepSettings() {
      const given = new URLSearchParams();
      if (settings.axis !== "step") given.set("axis", settings.axis);
      if (settings.smooth) given.set("smooth", settings.smooth);
      if (settings.logx) given.set("logx", "1");
      if (settings.logy) given.set("logy", "1");
      if (settings.find) given.set("find", settings.find);
      history.replaceState(null, "", location.pathname + location.search + (String(given) ? "#" + given : ""));
    }

    function ask(keys, more, ids) {
      const query = new URLSearchParams();
      for (const run of ids || wanted) query.append("run", run);
      for (const key of keys) query.append("key", key);
      query.set("axis", settings.axis);
      query.set("points", String(pointsALine()));
      for (const [name, value] of more || []) query.append(name, value);
      return fetch(plotAt + "?" + query, { credentials: "same-origin" }).then(function (answer) {
        if (!answer.ok) throw new Error(String(answer.status));
        failed = 0;
        return answer.json();
      });
    }

    // As many as can be told apart: one line uses the whole width, fifty share what is sent.
    function pointsALine() {
      const width = grid.clientWidth || 800;
      return Math.round(Math.min(2 * width, Math.max(160, 4000 / wanted.length)));
    }

    function isWanted(key) {
      const only = root.dataset.only;
      const but = root.dataset.but;
      if (only && !key.startsWith(only)) return false;
      return !(but && key.startsWith(but));
    }

    function begin() {
      return ask([]).then(function (answer) {
        setRuns(answer.runs);
        addCards(answer.keys.filter(isWanted));
        filterCards();
        root.dispatchEvent(new CustomEvent("board:names", { detail: { keys: answer.keys, runs: wanted } }));
        if (!cards.size) grid.replaceChildren(element("p", { class: "quiet" }, "No metric of these runs has two points yet."));
      }).catch(function () {
        grid.replaceChildren(element("p", { class: "problem" }, "The charts could not be read; reload the page."));
      });
    }

    function setRuns(found) {
      const changed = found.length !== runs.length || found.some(function (run, index) { return run.status !== runs[index].status || run.name !== runs[index].name; });
      runs = found;
      if (changed) drawLegend();
    }

    function tint(run) {
      return "--c" + (wanted.indexOf(run) % PALETTE);
    }

    function dash(run) {
      const round = Math.floor(wanted.indexOf(run) / PALETTE);
      return round ? [6 / round + 2, 3] : [];
    }

    function drawLegend() {
      legend.replaceChildren(...runs.map(function (run) {
        const item = element("li");
        const button = element("button", { type: "button", class: "plain swatch c" + (wanted.indexOf(run.id) % PALETTE) + (dash(run.id).length ? " dashed" : ""), "aria-pressed": String(!hidden.has(run.id)) });
        button.append(element("bdi", {}, asWritten(run.name || run.id.slice(-8))));
        button.title = (run.name || run.id) + ": show or hide; pointing lights it up";
        if (run.status === "running") button.classList.add("live");
        button.addEventListener("click", function () {
          if (hidden.has(run.id)) hidden.delete(run.id); else hidden.add(run.id);
          button.setAttribute("aria-pressed", String(!hidden.has(run.id)));
          redrawAll();
        });
        for (const name of ["pointerenter", "focus"]) button.addEventListener(name, function () { light(run.id); });
        for (const name of ["pointerleave", "blur"]) button.addEventListener(name, function () { light(null); });
        item.append(button);
        return item;
      }));
      if (runs.length > 5) for (const [label, all] of [["Show all", true], ["Hide all", false]]) legend.append(every(label, all));
      legend.hidden = runs.length < 2;
    }

    function every(label, all) {
      const item = element("li", { class: "every" });
      const button = element("button", { type: "button", class: "plain" }, label);
      button.addEventListener("click", function () {
        hidden.clear();
        if (!all) for (const run of runs) hidden.add(run.id);
        drawLegend();
        redrawAll();
      });
      item.append(button);
      return item;
    }

    function light(run) {
      if (lit === run) return;
      lit = run;
      for (const card of cards.values()) if (card.plot) card.plot.redraw(false);
      for (const [index, item] of [...legend.children].slice(0, runs.length).entries()) item.classList.toggle("lit", !!run && runs[index].id === run);
    }

    const eye = new IntersectionObserver(function (entries) {
      const due = [];
      for (const entry of entries) {
        const card = cards.get(entry.target.dataset.key);
        if (!card) continue;
        card.inSight = entry.isIntersecting;
        if (card.inSight && !card.lines) due.push(card);
        else if (card.inSight && card.stale) draw(card);
      }
      fill(due);
    }, { rootMargin: "240px" });

    function addCards(keys) {
      for (const key of keys) {
        if (cards.has(key)) continue;
        if (!cards.size) grid.textContent = "";
        const figure = element("figure", { class: "chart", "data-key": key });
        const caption = element("figcaption");
        const back = element("button", { type: "button", class: "plain back", hidden: "" }, "Whole range");
        caption.append(element("b", { title: key }, asWritten(key)), element("span", { class: "readout quiet" }), back);
        const place = element("div", { class: "plot", role: "img", "aria-label": key + " of " + runs.length + (runs.length === 1 ? " run" : " runs") });
        figure.append(caption, place);
        const card = { key: key, figure: figure, place: place, readout: caption.querySelector(".readout"), back: back, lines: null, zoom: null };
        back.addEventListener("click", function () { unzoom(card); });
        cards.set(key, card);
        grid.append(figure);
        eye.observe(figure);
      }
    }

    function fill(due) {
      for (let at = 0; at < due.length; at += AT_ONCE) {
        const part = due.slice(at, at + AT_ONCE);
        for (const card of part) card.lines = new Map();
        ask(part.map(function (card) { return card.key; })).then(function (answer) {
          take(answer, part);
        }).catch(function () {
          for (const card of part) { card.lines = null; problem(card); }
        });
      }
    }

    function problem(card) {
      if (card.plot) return;
      card.place.replaceChildren(element("p", { class: "problem" }, "The points could not be read; reload the page."));
    }

    function take(answer, part) {
      for (const line of answer.lines) {
        const card = cards.get(line.key);
        if (!card || !card.lines) continue;
        const old = card.lines.get(line.run);
        if (old && !line.is_whole) {
          old.x.push(...line.x);
          old.y.push(...line.y);
          old.step = line.step;
          old.count = line.count;
        } else card.lines.set(line.run, { x: line.x.slice(), y: line.y.slice(), step: line.step, count: line.count });
        card.stale = true;
      }
      for (const card of part) if (card.inSight && !card.zoom && (card.stale || !card.plot)) draw(card);
    }

    // Numbers only; what is not finite is a gap, and remembered to be marked at the lower edge.
    function split(line) {
      const odd = [];
      const y = line.y.map(function (value, index) {
        if (typeof value === "number") return value;
        odd.push([line.x[index], value]);
        return null;
      });
      return { x: line.x, y: y, odd: odd };
    }

    function positive(part, logx, logy) {
      if (!logx && !logy) return part;
      const keep = part.x.map(function (x) { return !logx || x > 0; });
      return {
        x: part.x.filter(function (_, i) { return keep[i]; }),
        y: part.y.filter(function (_, i) { return keep[i]; }).map(function (value) { return logy && value != null && value <= 0 ? null : value; }),
        odd: part.odd,
      };
    }

    function parts(card) {
      const lines = card.zoom && card.zoom.lines ? card.zoom.lines : card.lines;
      const found = [];
      for (const run of runs) {
        const line = lines.get(run.id);
        if (!line || hidden.has(run.id) || !line.x.length) continue;
        const part = positive(split(line), settings.logx, settings.logy);
        if (part.x.length) found.push(Object.assign({ run: run }, part));
      }
      return found;
    }

    function draw(card) {
      card.stale = false;
      const found = parts(card);
      if (card.plot) { card.plot.destroy(); card.plot = null; }
      card.place.textContent = "";
      if (!found.length) {
        card.place.append(element("p", { class: "quiet" }, hidden.size ? "Its runs are hidden." : "Nothing to draw on these axes."));
        return;
      }
      const tables = [];
      const series = [{ label: settings.axis }];
      for (const part of found) {
        tables.push([part.x, part.y]);
        series.push(stroke(part, settings.smooth > 0));
      }
      if (settings.smooth > 0) {
        for (const part of found) {
          tables.push([part.x, smoothed(part.x, part.y, settings.smooth)]);
          series.push(stroke(part, false));
        }
      }
      const data = uPlot.join(tables, tables.map(function () { return [1, 1]; }));
      card.plot = new uPlot(options(card, series, found), data, card.place);
    }

    function stroke(part, faint) {
      const name = tint(part.run.id);
      return {
        label: part.run.name,
        run: part.run.id,
        faint: faint,
        stroke: function () {
          const base = colour(name);
          if (lit && lit !== part.run.id) return base + "2e";
          return faint ? base + "4d" : base;
        },
        width: faint ? 1 : 1.6,
        dash: dash(part.run.id),
        points: { show: part.x.length === 1 },
        value: function (_, value) { return short(value); },
      };
    }

    function axisValues(_, ticks) {
      return ticks.map(settings.axis === "relative" ? seconds : function (tick) { return tick == null ? "" : Number.isInteger(tick) && Math.abs(tick) < 1e7 ? tick.toLocaleString("en") : short(tick); });
    }

    function options(card, series, found) {
      const look = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
      const first = Object.assign({ size: settings.axis === "time" ? 46 : 30 }, look);
      const isTime = settings.axis === "time";
      if (!isTime) first.values = axisValues;
      first.space = settings.axis === "relative" ? 72 : 64;
      const second = Object.assign({ size: 62, values: function (_, ticks) { return ticks.map(function (tick) { return tick == null ? "" : short(tick); }); } }, look);
      const x = { time: isTime };
      if (settings.logx && !isTime) x.distr = 3;
      if (card.zoom) x.range = function () { return [card.zoom.first, card.zoom.last]; };
      return {
        width: card.place.clientWidth,
        height: root.classList.contains("tall") ? 300 : 200,
        tzDate: function (stamp) { return uPlot.tzDate(new Date(stamp * 1000), "UTC"); },
        legend: { show: false },
        cursor: { sync: { key: sync.key, setSeries: false, filters: { pub: function (kind) { return kind === "mousemove" || kind === "mouseleave"; } } }, focus: { prox: 24 }, drag: { x: true, y: false, setScale: false } },
        focus: { alpha: 1 },
        scales: { x: x, y: settings.logy ? { distr: 3 } : {} },
        axes: [first, second],
        series: series,
        hooks: {
          setCursor: [function (plot) { read(card, plot); }],
          setSeries: [function (plot, index) { if (index != null && index > 0) card.near = plot.series[index].run; else card.near = null; }],
          setSelect: [function (plot) { if (plot.select.width > 4) zoom(card, plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x")); plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false); }],
          draw: [function (plot) { markOdd(plot, found); }],
          ready: [function (plot) { plot.over.addEventListener("dblclick", function () { unzoom(card); }); }],
        },
      };
    }

    function markOdd(plot, found) {
      const context = plot.ctx;
      context.save();
      for (const part of found) {
        context.fillStyle = colour(tint(part.run.id));
        for (const [x] of part.odd.slice(0, 500)) {
          const at = plot.valToPos(x, "x", true);
          if (at < plot.bbox.left || at > plot.bbox.left + plot.bbox.width) continue;
          context.beginPath();
          const low = plot.bbox.top + plot.bbox.height;
          context.moveTo(at, low - 8 * devicePixelRatio);
          context.lineTo(at + 4 * devicePixelRatio, low);
          context.lineTo(at - 4 * devicePixelRatio, low);
          context.fill();
        }
      }
      context.restore();
    }

    function read(card, plot) {
      const index = plot.cursor.idx;
      if (index == null) { card.readout.textContent = oddNote(card); return; }
      const at = plot.data[0][index];
      const shown = settings.axis === "step" ? "step " + at : settings.axis === "relative" ? seconds(at) : new Date(at * 1000).toISOString().slice(0, 19).replace("T", " ");
      const rows = [];
      plot.series.forEach(function (one, number) {
        if (number === 0 || (settings.smooth > 0 && one.faint)) return;
        let value = plot.data[number][index];
        for (let back = index; value == null && back > Math.max(index - 40, 0); back--) value = plot.data[number][back];
        if (value != null) rows.push([one, value]);
      });
      const near = card.near || lit;
      const chosen = rows.find(function (row) { return row[0].run === near; }) || (rows.length === 1 ? rows[0] : null);
      if (chosen) card.readout.textContent = shown + ": " + (runs.length > 1 ? asWritten(chosen[0].label) + " " : "") + short(chosen[1]);
      else if (rows.length) {
        const values = rows.map(function (row) { return row[1]; });
        card.readout.textContent = shown + ": " + short(Math.min(...values)) + " to " + short(Math.max(...values));
      } else card.readout.textContent = shown;
    }

    function oddNote(card) {
      let count = 0;
      for (const [run, line] of card.lines || []) if (!hidden.has(run)) for (const value of line.y) count += typeof value !== "number";
      return count ? "▲ not a finite number" : "";
    }

    function zoom(card, first, last) {
      card.zoom = { first: Math.min(first, last), last: Math.max(first, last), lines: null };
      card.back.hidden = false;
      draw(card);
      const mine = card.zoom;
      ask([card.key], [["first", mine.first], ["last", mine.last]]).then(function (answer) {
        if (card.zoom !== mine) return;
        mine.lines = new Map(answer.lines.map(function (line) { return [line.run, line]; }));
        card.figure.dataset.finer = "yes";
        draw(card);
      }).catch(function () { /* what is drawn stays: it is coarse, not wrong */ });
    }

    function unzoom(card) {
      if (!card.zoom) return;
      card.zoom = null;
      card.back.hidden = true;
      delete card.figure.dataset.finer;
      draw(card);
    }

    function redrawAll() {
      for (const card of cards.values()) {
        if (!card.lines) continue;
        if (card.inSight) draw(card); else card.stale = true;
      }
    }

    function reload() {
      for (const card of cards.values()) { card.zoom = null; card.back.hidden = true; card.lines = null; }
      fill([...cards.values()].filter(function (card) { return card.inSight; }));
    }

    function filterCards() {
      const text = settings.find.toLowerCase();
      for (const card of cards.values()) card.figure.hidden = !!text && !card.key.toLowerCase().includes(text);
    }

    // Only what is new, and only of runs that go on: the last step and the count of each line.
    function refresh() {
      const live = runs.filter(function (run) { return run.status === "running"; });
      if (document.hidden || failed > 5 || !live.length) return;
      const ids = live.map(function (run) { return run.id; });
      const seen = [...cards.values()].filter(function (card) { return card.inSight && card.lines && !card.figure.hidden; });
      const most = Math.max(1, Math.floor(120 / ids.length)); // the address has to stay short
      const due = seen.length > most ? seen.filter(function (_, index) { return Math.floor(index / most) === turn % Math.ceil(seen.length / most); }) : seen;
      turn += 1;
      const known = [];
      due.forEach(function (card, number) {
        ids.forEach(function (id, place) {
          const line = card.lines.get(id);
          if (line) known.push(["known", place + ":" + number + ":" + line.step + ":" + line.count]);
        });
      });
      ask(due.map(function (card) { return card.key; }), known, ids).then(function (answer) {
        const fresh = new Map(answer.runs.map(function (run) { return [run.id, run]; }));
        setRuns(runs.map(function (run) { return fresh.get(run.id) || run; }));
        take(answer, due);
        addCards(answer.keys.filter(isWanted));
        filterCards();
      }).catch(function () { failed += 1; });
    }

    controls.hidden = false;
    for (const [name, value] of Object.entries(settings)) {
      const input = controls.querySelector("[name=" + name + "]");
      if (typeof value === "boolean") input.checked = value; else input.value = value;
    }
    controls.querySelector("output").textContent = String(settings.smooth);
    let pending = 0;
    controls.addEventListener("input", function (event) {
      const input = event.target;
      const name = input.name;
      settings[name] = input.type === "checkbox" ? input.checked : input.type === "range" ? Number(input.value) : input.value;
      controls.querySelector("output").textContent = String(settings.smooth);
      cancelAnimationFrame(pending);
      pending = requestAnimationFrame(function () {
        keepSettings();
        if (name === "axis") reload();
        else if (name === "find") filterCards();
        else redrawAll();
      });
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
    let waiting = 0;
    addEventListener("resize", function () { clearTimeout(waiting); waiting = setTimeout(redrawAll, 150); });
    begin();
    if ("live" in root.dataset) setInterval(refresh, REFRESH_MS);
  }

  document.querySelectorAll(".board").forEach(Board);
})();
