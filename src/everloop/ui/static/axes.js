// Runs between parallel axes, with brushes, and any two of their values against each other.
"use strict";

(function () {
  const SVG = "http://www.w3.org/2000/svg";
  const HEIGHT = 320;
  const TOP = 44;
  const FOOT = 28;
  const MOST_NAMES = 24;

  function svg(tag, attributes, text) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    if (text != null) made.textContent = text;
    return made;
  }

  function short(value) {
    if (typeof value === "string") {
      const text = asWritten(value);
      return text.length > 16 ? text.slice(0, 15) + "…" : text;
    }
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function mix(part) {
    // From one end of the scale to the other through its middle, each of them given by the theme.
    const stops = ["--scale-low", "--scale-mid", "--scale-high"].map(function (name) { return colour(name).match(/[0-9a-f]{2}/gi).map(function (hex) { return parseInt(hex, 16); }); });
    const [from, to, at] = part < 0.5 ? [stops[0], stops[1], part * 2] : [stops[1], stops[2], part * 2 - 1];
    return "rgb(" + from.map(function (value, index) { return Math.round(value + (to[index] - value) * at); }).join(",") + ")";
  }

  function valueOf(run, key) {
    const dot = key.indexOf(".");
    const space = key.slice(0, dot);
    if (dot < 0) return key === "took" ? run.seconds : run[key];
    const name = key.slice(dot + 1);
    // A name may be that of something every object has.
    return run[space] && Object.hasOwn(run[space], name) ? run[space][name] : undefined;
  }

  function quoted(key) {
    const dot = key.indexOf(".");
    const name = key.slice(dot + 1);
    return key.slice(0, dot + 1) + (/^[A-Za-z_][\w/:@-]*(\.[\w/:@-]+)*$/.test(name) ? name : "`" + name.replaceAll("`", "``") + "`");
  }

  function Axis(runs, key) {
    const raw = runs.map(function (run) { return valueOf(run, key); });
    const present = raw.filter(function (value) { return value != null && value !== ""; });
    const numbers = raw.map(function (value) { return value == null || value === "" ? NaN : Number(value); });
    const isNumber = present.length > 0 && raw.every(function (value, index) { return value == null || value === "" || Number.isFinite(numbers[index]) || /^[+-]?(nan|inf(inity)?)$/i.test(value); });
    const axis = { key: key, isNumber: isNumber, flipped: false, brush: null, present: present.length };
    if (isNumber) {
      const finite = numbers.filter(Number.isFinite);
      axis.low = Math.min(...finite);
      axis.high = Math.max(...finite);
      // Values over many sizes, but not those that are spread evenly and only happen to begin small.
      const middle = finite.slice().sort(function (a, b) { return a - b; })[Math.floor(finite.length / 2)];
      axis.log = axis.low > 0 && axis.high / axis.low >= 1000 && middle / axis.high < 0.1;
      axis.values = numbers.map(function (value) { return Number.isFinite(value) ? value : null; });
    } else {
      axis.names = [...new Set(present.map(String))].sort();
      axis.values = raw.map(function (value) { return value == null || value === "" ? null : String(value); });
    }
    axis.part = function (value) {
      if (value == null) return null;
      let at;
      if (!axis.isNumber) at = axis.names.length < 2 ? 0.5 : axis.names.indexOf(value) / (axis.names.length - 1);
      else if (axis.high === axis.low) at = 0.5;
      else if (axis.log) at = Math.log(value / axis.low) / Math.log(axis.high / axis.low);
      else at = (value - axis.low) / (axis.high - axis.low);
      return axis.flipped ? 1 - at : at;
    };
    axis.at = function (part) {
      const at = axis.flipped ? 1 - part : part;
      if (!axis.isNumber) return axis.names[Math.round(at * (axis.names.length - 1))];
      return axis.log ? axis.low * Math.pow(axis.high / axis.low, at) : axis.low + at * (axis.high - axis.low);
    };
    return axis;
  }

  function Board(root) {
    const place = root.querySelector(".parallel");
    const scatterPlace = root.querySelector(".scatter");
    const say = root.querySelector("[role=status]");
    const field = function (name) { return root.querySelector("[name=" + name + "]"); };
    let runs = [];
    let axes = [];
    let names = [];
    let lit = -1;
    let canvas = null;
    let passes = [];

    fetch(root.dataset.points, { credentials: "same-origin" })
      .then(function (answer) { if (!answer.ok) throw new Error(String(answer.status)); return answer.json(); })
      .then(begin)
      .catch(function (error) { place.replaceChildren(Object.assign(document.createElement("p"), { className: "problem", textContent: "The runs could not be read; reload the page." })); throw error; });

    function begin(found) {
      runs = found.items;
      const seen = new Set();
      for (const run of runs) for (const space of ["params", "metrics"]) for (const name of Object.keys(run[space] || {})) if (!name.startsWith("system/")) seen.add(space + "." + name);
      names = [...seen].sort();
      const wanted = JSON.parse(root.dataset.keys).filter(function (key) { return seen.has(key) || key === "took"; });
      const keys = wanted.length > 1 ? wanted : names.slice(0, 8);
      // Parameters first, what came of them last: the eye reads from left to right.
      keys.sort(function (a, b) { return Number(a.startsWith("metrics.")) - Number(b.startsWith("metrics.")); });
      axes = keys.map(function (key) { return Axis(runs, key); }).filter(function (axis) { return axis.present && (axis.isNumber || axis.names.length <= MOST_NAMES); });
      if (runs.length < 2 || axes.length < 2) {
        place.replaceChildren(Object.assign(document.createElement("p"), { className: "quiet padded", textContent: "Two runs and two values that they share are the least that can be drawn." }));
        scatterPlace.hidden = true;
        return;
      }
      for (const hidden of root.querySelectorAll(".controls[hidden], .hint[hidden]")) hidden.hidden = false;
      choices(field("colour"), names, axes[axes.length - 1].key);
      choices(field("across"), names, axes[0].key);
      choices(field("up"), names, axes[axes.length - 1].key);
      fillAdd();
      draw();
      scatter();
    }

    function choices(select, keys, chosen) {
      select.replaceChildren(...keys.map(function (key) { return new Option(key, key, false, key === chosen); }));
    }

    function fillAdd() {
      const used = new Set(axes.map(function (axis) { return axis.key; }));
      field("add").replaceChildren(new Option("choose", ""), ...names.filter(function (name) { return !used.has(name); }).map(function (name) { return new Option(name, name); }));
    }

    function passing(index) {
      return axes.every(function (axis) {
        if (!axis.brush) return true;
        const part = axis.part(axis.values[index]);
        return part != null && part >= axis.brush[0] - 1e-9 && part <= axis.brush[1] + 1e-9;
      });
    }

    function paints() {
      const axis = Axis(runs, field("colour").value);
      return axis.values.map(function (value) { const part = axis.part(value); return part == null ? null : mix(part); });
    }

    function draw() {
      lit = -1;
      const width = Math.max(place.clientWidth, axes.length * 108);
      const step = (width - 120) / Math.max(axes.length - 1, 1);
      const x = function (index) { return 60 + index * step; };
      const y = function (part) { return HEIGHT - FOOT - part * (HEIGHT - TOP - FOOT); };
      canvas = document.createElement("canvas");
      canvas.width = width * devicePixelRatio;
      canvas.height = HEIGHT * devicePixelRatio;
      canvas.style.width = width + "px";
      canvas.style.height = HEIGHT + "px";
      const over = svg("svg", { width: width, height: HEIGHT, role: "img", "aria-label": runs.length + " runs between " + axes.length + " axes: " + axes.map(function (axis) { return axis.key; }).join(", ") });
      const holder = document.createElement("div");
      holder.className = "layers";
      holder.style.width = width + "px";
      holder.append(canvas, over);
      place.replaceChildren(holder);
      axes.forEach(function (axis, index) { over.append(drawAxis(axis, x(index), y, over)); });
      over.addEventListener("pointermove", function (event) { point(event, x, y, step, over); });
      over.addEventListener("pointerleave", function () { lit = -1; lines(x, y); tell(); });
      over.addEventListener("click", function () { if (lit >= 0) location.assign(root.dataset.runsAt + "/" + runs[lit].id); });
      lines(x, y);
      tell();
    }

    function drawAxis(axis, left, y, over) {
      const group = svg("g", { class: "axis", transform: "translate(" + left + " 0)" });
      group.append(svg("line", { y1: y(0), y2: y(1) }));
      const title = svg("text", { class: "title", y: 16, "text-anchor": "middle", tabindex: "0", role: "button" }, short(axis.key.replace(/^(params|metrics)\./, "")));
      title.append(svg("title", {}, axis.key + ": turn it over"));
      const turn = function () { axis.flipped = !axis.flipped; axis.brush = null; draw(); scatter(); };
      title.addEventListener("click", function (event) { event.stopPropagation(); turn(); });
      title.addEventListener("keydown", function (event) { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); turn(); } });
      const away = svg("text", { class: "away", y: 32, "text-anchor": "middle", tabindex: "0", role: "button", "aria-label": "Take the axis " + axis.key + " away" }, axes.length > 2 ? "×" : "");
      const remove = function () { if (axes.length > 2) { axes = axes.filter(function (one) { return one !== axis; }); fillAdd(); draw(); } };
      away.addEventListener("click", function (event) { event.stopPropagation(); remove(); });
      away.addEventListener("keydown", function (event) { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); remove(); } });
      group.append(title, away);
      const marks = axis.isNumber ? [0, 0.25, 0.5, 0.75, 1].map(function (part) { return [part, short(axis.at(part))]; }) : axis.names.map(function (name) { return [axis.part(name), short(name)]; });
      for (const [part, label] of axis.isNumber && axis.low === axis.high ? [[0.5, short(axis.low)]] : marks) {
        group.append(svg("line", { x1: -4, x2: 0, y1: y(part), y2: y(part) }));
        group.append(svg("text", { x: -7, y: y(part) + 4, "text-anchor": "end" }, label));
      }
      if (axis.isNumber && axis.low > 0 && axis.high > axis.low) {
        const scale = svg("text", { class: "away", y: HEIGHT - 8, "text-anchor": "middle", tabindex: "0", role: "button", "aria-label": "Make the axis " + axis.key + (axis.log ? " linear" : " logarithmic") }, axis.log ? "log" : "linear");
        const change = function () { axis.log = !axis.log; axis.brush = null; draw(); scatter(); };
        scale.addEventListener("click", function (event) { event.stopPropagation(); change(); });
        scale.addEventListener("keydown", function (event) { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); change(); } });
        group.append(scale);
      }
      const brush = svg("rect", { class: "brush", x: -9, width: 18, y: 0, height: 0 });
      const show = function () {
        brush.setAttribute("y", axis.brush ? y(axis.brush[1]) : 0);
        brush.setAttribute("height", axis.brush ? Math.max(y(axis.brush[0]) - y(axis.brush[1]), 2) : 0);
      };
      const grip = svg("rect", { class: "grip", x: -16, width: 32, y: y(1) - 6, height: y(0) - y(1) + 12 });
      let from = null;
      const part = function (event) { return Math.min(1, Math.max(0, (y(0) - (event.clientY - over.getBoundingClientRect().top)) / (y(0) - y(1)))); };
      grip.addEventListener("pointerdown", function (event) { from = part(event); grip.setPointerCapture(event.pointerId); event.preventDefault(); });
      grip.addEventListener("pointermove", function (event) {
        if (from == null) return;
        const to = part(event);
        axis.brush = [Math.min(from, to), Math.max(from, to)];
        show();
        relight();
        event.stopPropagation();
      });
      const end = function (event) {
        if (from == null) return;
        if (!axis.brush || axis.brush[1] - axis.brush[0] < 0.01) axis.brush = null;
        from = null;
        event.stopPropagation();
        draw();
        scatter();
      };
      grip.addEventListener("pointerup", end);
      grip.addEventListener("pointercancel", end);
      grip.addEventListener("click", function (event) { event.stopPropagation(); });
      show();
      group.append(brush, grip);
      return group;
    }

    let waiting = 0;
    function relight() {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(function () { const again = place.querySelector("svg"); if (again) linesNow(); tell(); });
    }

    let linesNow = function () {};
    function lines(x, y) {
      linesNow = function () { paint(x, y); };
      linesNow();
    }

    function paint(x, y) {
      const context = canvas.getContext("2d");
      context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
      context.clearRect(0, 0, canvas.width, canvas.height);
      const colours = paints();
      passes = runs.map(function (_, index) { return passing(index); });
      const order = [...runs.keys()].sort(function (a, b) { return Number(passes[a]) - Number(passes[b]); });
      if (lit >= 0) order.push(lit);
      const thick = runs.length > 150 ? 1 : 1.5;
      for (const index of order) {
        const on = passes[index];
        context.strokeStyle = on || index === lit ? colours[index] || colour("--quiet") : colour("--line");
        context.globalAlpha = index === lit ? 1 : on ? (runs.length > 150 ? 0.5 : 0.8) : 0.5;
        context.lineWidth = index === lit ? 3 : thick;
        context.beginPath();
        let pen = false;
        axes.forEach(function (axis, number) {
          const part = axis.part(axis.values[index]);
          if (part == null) { pen = false; return; }
          if (pen) context.lineTo(x(number), y(part)); else context.moveTo(x(number), y(part));
          pen = true;
        });
        context.stroke();
      }
      context.globalAlpha = 1;
    }

    function point(event, x, y, step, over) {
      const box = over.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      const left = Math.max(0, Math.min(axes.length - 2, Math.floor((px - 60) / step)));
      const share = (px - x(left)) / step;
      let best = -1;
      let near = 8;
      runs.forEach(function (_, index) {
        if (!passes[index]) return;
        const [a, b] = [axes[left], axes[left + 1]].map(function (axis) { return axis.part(axis.values[index]); });
        if (a == null || b == null) return;
        const distance = Math.abs(y(a + (b - a) * share) - py);
        if (distance < near) { near = distance; best = index; }
      });
      if (best === lit) return;
      lit = best;
      over.classList.toggle("pointing", lit >= 0);
      linesNow();
      tell();
    }

    function tell() {
      const count = passes.filter(Boolean).length;
      say.textContent = lit >= 0 ? (runs[lit].name || runs[lit].id.slice(-8)) + ": " + axes.map(function (axis) { const value = axis.values[lit]; return axis.key.replace(/^\w+\./, "") + " " + (value == null ? "–" : short(value)); }).join(", ") : count === runs.length ? runs.length + " runs" : count + " of " + runs.length + " runs within the brushes";
      const link = root.querySelector(".as-filter");
      const tests = axes.filter(function (axis) { return axis.brush; }).map(asTest);
      link.hidden = !tests.length || !root.dataset.points.includes("/runs/points");
      if (tests.length) {
        const here = new URLSearchParams(location.search);
        const old = here.get("filter");
        here.set("filter", (old ? "(" + old + ") AND " : "") + tests.join(" AND "));
        here.delete("show");
        link.href = root.dataset.runsAt + "?" + here;
      }
    }

    function asTest(axis) {
      const name = quoted(axis.key);
      if (!axis.isNumber) {
        const inside = axis.names.filter(function (value) { const part = axis.part(value); return part >= axis.brush[0] && part <= axis.brush[1]; });
        return name + " IN (" + inside.map(function (value) { return "'" + value.replaceAll("'", "''") + "'"; }).join(", ") + ")";
      }
      const ends = axis.brush.map(axis.at).sort(function (a, b) { return a - b; });
      return name + " BETWEEN " + ends.map(function (end) { return String(Number(end.toPrecision(6))); }).join(" AND ");
    }

    // ---- two against each other ------------------------------------------------------------------

    function scatter() {
      const [across, up] = [field("across"), field("up")].map(function (select) { return Axis(runs, select.value); });
      for (const [axis, name] of [[across, "scatter-logx"], [up, "scatter-logy"]]) {
        const box = field(name);
        box.disabled = !(axis.isNumber && axis.low > 0);
        axis.log = box.checked && !box.disabled;
      }
      const width = Math.max(scatterPlace.clientWidth, 300);
      const [x, y] = [function (part) { return 70 + part * (width - 100); }, function (part) { return 270 - part * 240; }];
      const picture = svg("svg", { width: width, height: 320, role: "group", "aria-label": up.key + " against " + across.key });
      const grid = svg("g", { class: "axis" });
      for (const part of [0, 0.25, 0.5, 0.75, 1]) {
        grid.append(svg("line", { class: "faint", x1: x(0), x2: x(1), y1: y(part), y2: y(part) }), svg("line", { class: "faint", x1: x(part), x2: x(part), y1: y(0), y2: y(1) }));
      }
      ticks(across).forEach(function (mark) { grid.append(svg("text", { x: x(mark[0]), y: 288, "text-anchor": "middle" }, mark[1])); });
      ticks(up).forEach(function (mark) { grid.append(svg("text", { x: 62, y: y(mark[0]) + 4, "text-anchor": "end" }, mark[1])); });
      grid.append(svg("text", { class: "title", x: width / 2, y: 310, "text-anchor": "middle" }, across.key), svg("text", { class: "title", x: 8, y: 16 }, up.key));
      picture.append(grid);
      const colours = paints();
      runs.forEach(function (run, index) {
        const [a, b] = [across.part(across.values[index]), up.part(up.values[index])];
        if (a == null || b == null) return;
        const link = svg("a", { href: root.dataset.runsAt + "/" + run.id });
        const dot = svg("circle", { cx: x(a), cy: y(b), r: 5, class: passes[index] ? "dot" : "dot off" });
        if (passes[index] && colours[index]) dot.style.fill = colours[index];
        dot.append(svg("title", {}, (run.name || run.id.slice(-8)) + "\n" + across.key + " " + across.values[index] + "\n" + up.key + " " + up.values[index]));
        link.append(dot);
        picture.append(link);
      });
      scatterPlace.replaceChildren(picture);
    }

    function ticks(axis) {
      if (!axis.isNumber) return axis.names.slice(0, 12).map(function (name) { return [axis.part(name), short(name)]; });
      if (axis.low === axis.high) return [[0.5, short(axis.low)]];
      return [0, 0.25, 0.5, 0.75, 1].map(function (part) { return [part, short(axis.at(part))]; });
    }

    function again() { if (axes.length > 1 && runs.length > 1) { draw(); scatter(); } }
    field("clear").addEventListener("click", function () { for (const axis of axes) axis.brush = null; again(); });
    field("add").addEventListener("change", function (event) {
      if (!event.target.value) return;
      axes.push(Axis(runs, event.target.value));
      fillAdd();
      draw();
    });
    for (const name of ["colour", "across", "up", "scatter-logx", "scatter-logy"]) field(name).addEventListener("change", again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    let later = 0;
    addEventListener("resize", function () { clearTimeout(later); later = setTimeout(again, 150); });
  }

  document.querySelectorAll(".axes-board").forEach(Board);
})();
