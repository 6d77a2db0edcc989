// The list of runs: completion in the filter, ticks that outlive a page, columns to find, keys.
"use strict";

(function () {
  const OPERATORS = ["AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "BETWEEN", "IS NULL", "IS NOT NULL"];
  const OWN = ["name", "status", "experiment", "started_at", "ended_at", "duration", "created_by", "pipeline", "dataset", "model"];
  const SPACES = ["metrics", "params", "tags"];
  const STATES = ["running", "finished", "failed", "killed"];
  const field = document.getElementById("filter");
  let names = null;

  function fetchNames() {
    if (!names) {
      names = fetch(field.dataset.names, { credentials: "same-origin" })
        .then(function (answer) { return answer.ok ? answer.json() : { metrics: [], params: [], tags: [] }; })
        .catch(function () { names = null; return { metrics: [], params: [], tags: [] }; });
    }
    return names;
  }

  function fetchValues(space, key, prefix) {
    const query = new URLSearchParams({ space: space.slice(0, -1), key: key, prefix: prefix });
    return fetch(field.dataset.values + "?" + query, { credentials: "same-origin" })
      .then(function (answer) { return answer.ok ? answer.json() : { items: [] }; })
      .then(function (found) { return found.items; })
      .catch(function () { return []; });
  }

  function quoted(name) {
    return /^[A-Za-z_][\w/:@-]*(\.[\w/:@-]+)*$/.test(name) ? name : "`" + name.replaceAll("`", "``") + "`";
  }

  // ---- completion --------------------------------------------------------------------------------

  function complete() {
    const box = document.createElement("ul");
    box.id = "filter-choices";
    box.className = "choices-list";
    box.setAttribute("role", "listbox");
    box.hidden = true;
    field.after(box);
    for (const [name, value] of [["role", "combobox"], ["aria-controls", box.id], ["aria-autocomplete", "list"], ["aria-expanded", "false"]]) field.setAttribute(name, value);
    let items = [];
    let at = -1;
    let from = 0;
    let asked = 0;

    function close() {
      box.hidden = true;
      at = -1;
      field.setAttribute("aria-expanded", "false");
      field.removeAttribute("aria-activedescendant");
    }

    function mark(next) {
      at = next;
      [...box.children].forEach(function (item, index) { item.setAttribute("aria-selected", String(index === at)); });
      const chosen = box.children[at];
      if (chosen) {
        field.setAttribute("aria-activedescendant", chosen.id);
        chosen.scrollIntoView({ block: "nearest" });
      } else field.removeAttribute("aria-activedescendant");
    }

    function take(index) {
      const text = items[index].text;
      const caret = field.selectionStart;
      const space = text.endsWith(".") ? "" : " ";
      field.value = field.value.slice(0, from) + text + space + field.value.slice(caret).replace(/^ /, "");
      const end = from + text.length + space.length;
      field.setSelectionRange(end, end);
      close();
      field.focus();
      if (text.endsWith(".")) suggest();
    }

    function show(found, start) {
      items = found.slice(0, 40);
      from = start;
      if (!items.length) { close(); return; }
      box.replaceChildren(...items.map(function (item, index) {
        const row = document.createElement("li");
        row.id = "choice-" + index;
        row.setAttribute("role", "option");
        row.setAttribute("aria-selected", "false");
        const text = document.createElement("span");
        text.textContent = item.label || item.text;
        const kind = document.createElement("span");
        kind.className = "quiet";
        kind.textContent = item.kind;
        row.append(text, kind);
        row.addEventListener("pointerdown", function (event) { event.preventDefault(); take(index); });
        return row;
      }));
      box.hidden = false;
      field.setAttribute("aria-expanded", "true");
      mark(-1);
    }

    // What stands before the caret decides: a value after a comparison, a name, or a word between.
    function suggest() {
      const turn = ++asked;
      const before = field.value.slice(0, field.selectionStart);
      const value = /(?:(metrics|params|tags)\.(`(?:[^`]|``)+`|[\w./:@-]+)|(status|experiment))\s*(?:==?|!=|<>|(?:i?like))\s*'([^']*)$/i.exec(before);
      if (value) {
        const start = before.length - value[4].length - 1;
        const literal = function (text) { return { text: "'" + text.replaceAll("'", "''") + "'", label: text, kind: "value" }; };
        if (value[3]) {
          const known = value[3].toLowerCase() === "status" ? STATES : [...document.querySelectorAll("select[name=experiment] option[value]:not([value=''])")].map(function (option) { return option.value; });
          show(known.filter(function (text) { return text.startsWith(value[4]); }).map(literal), start);
          return;
        }
        const key = value[2].replace(/^`|`$/g, "").replaceAll("``", "`");
        fetchValues(value[1].toLowerCase(), key, value[4]).then(function (found) { if (turn === asked) show(found.map(literal), start); });
        return;
      }
      if ((before.match(/'/g) || []).length % 2) { close(); return; }
      const word = /(?:(metrics|params|tags)\.`?([^`\s'"=<>!()]*)|([A-Za-z_]*))$/.exec(before);
      const start = before.length - word[0].length;
      if (word[1]) {
        const space = word[1];
        const part = word[2].toLowerCase();
        fetchNames().then(function (found) {
          if (turn !== asked) return;
          const fit = found[space].filter(function (name) { return name.toLowerCase().includes(part); });
          fit.sort(function (a, b) { return Number(b.toLowerCase().startsWith(part)) - Number(a.toLowerCase().startsWith(part)); });
          show(fit.map(function (name) { return { text: space + "." + quoted(name), label: name, kind: space.slice(0, -1) }; }), start);
        });
        return;
      }
      const part = (word[3] || "").toLowerCase();
      const ended = /(?:'|\)|\d|null)\s+\w*$/i.test(before);
      if (!part && !ended && before.trim()) { close(); return; }
      const words = ended
        ? OPERATORS.slice(0, 2).map(function (text) { return { text: text, kind: "" }; })
        : SPACES.map(function (text) { return { text: text + ".", kind: "of a run" }; }).concat(OWN.map(function (text) { return { text: text, kind: "" }; }));
      show(words.filter(function (item) { return item.text.toLowerCase().startsWith(part); }), start);
    }

    field.addEventListener("input", suggest);
    field.addEventListener("click", suggest);
    field.addEventListener("blur", close);
    field.addEventListener("keydown", function (event) {
      if (event.key === "Escape") { close(); return; }
      if (box.hidden) {
        if (event.key === "ArrowDown" || (event.key === " " && event.ctrlKey)) { suggest(); event.preventDefault(); }
        return;
      }
      if (event.key === "ArrowDown") mark((at + 1) % items.length);
      else if (event.key === "ArrowUp") mark((at <= 0 ? items.length : at) - 1);
      else if ((event.key === "Enter" && at >= 0) || (event.key === "Tab" && at >= 0)) take(at);
      else return;
      event.preventDefault();
    });
  }

  // ---- ticks: kept while one turns pages ---------------------------------------------------------

  function ticks() {
    const form = document.getElementById("ticked");
    if (!form) return;
    const store = "ticked " + location.pathname + (new URLSearchParams(location.search).get("trash") || "");
    const read = function () { try { return new Map(JSON.parse(sessionStorage.getItem(store) || "[]")); } catch (_) { return new Map(); } };
    const chosen = read();
    const boxes = [...form.querySelectorAll("input[name=run]")];
    const every = document.createElement("input");
    every.type = "checkbox";
    every.setAttribute("aria-label", "Tick all runs of this page");
    form.querySelector("thead .pick").append(every);
    const count = document.getElementById("ticked-count");
    const clear = form.querySelector("button[type=reset]");
    const trash = document.getElementById("trash");
    if (trash) form.querySelector(".selection").append(trash);

    function tell() {
      sessionStorage.setItem(store, JSON.stringify([...chosen]));
      count.textContent = chosen.size ? chosen.size + " ticked" : "";
      clear.hidden = !chosen.size;
      if (trash) trash.hidden = !chosen.size;
      form.querySelector("button[type=submit]").disabled = chosen.size === 1;
      const here = boxes.filter(function (box) { return box.checked; }).length;
      every.checked = here === boxes.length;
      every.indeterminate = here > 0 && here < boxes.length;
    }

    for (const box of boxes) {
      box.checked = chosen.has(box.value);
      box.closest("tr").classList.toggle("ticked", box.checked);
      box.addEventListener("change", function () {
        if (box.checked) chosen.set(box.value, 1); else chosen.delete(box.value);
        box.closest("tr").classList.toggle("ticked", box.checked);
        tell();
      });
    }
    every.addEventListener("change", function () {
      const to = every.checked;
      for (const box of boxes) if (box.checked !== to) { box.checked = to; box.dispatchEvent(new Event("change")); }
    });
    let last = null;
    form.addEventListener("click", function (event) {
      const box = event.target.closest("input[name=run]");
      if (!box) return;
      if (event.shiftKey && last) {
        const [low, high] = [boxes.indexOf(last), boxes.indexOf(box)].sort(function (a, b) { return a - b; });
        for (const one of boxes.slice(low, high + 1)) if (one.checked !== box.checked) { one.checked = box.checked; one.dispatchEvent(new Event("change")); }
      }
      last = box;
    });
    clear.addEventListener("click", function (event) {
      event.preventDefault();
      chosen.clear();
      for (const box of boxes) { box.checked = false; box.closest("tr").classList.remove("ticked"); }
      tell();
    });
    function carry(target) {
      for (const old of target.querySelectorAll("input[data-carried]")) old.remove();
      const here = target === form ? new Set(boxes.map(function (box) { return box.value; })) : new Set();
      for (const id of chosen.keys()) {
        if (here.has(id)) continue;
        const input = document.createElement("input");
        input.type = "hidden";
        input.name = "run";
        input.value = id;
        input.dataset.carried = "";
        target.append(input);
      }
    }
    form.addEventListener("submit", function () { carry(form); });
    if (trash) trash.addEventListener("submit", function () { carry(trash); sessionStorage.removeItem(store); });
    tell();
    form.querySelector(".keys").hidden = false;
    keys(boxes, form);
  }

  // ---- keys --------------------------------------------------------------------------------------

  function keys(boxes, form) {
    const links = boxes.map(function (box) { return box.closest("tr").querySelector("th a"); });
    document.addEventListener("keydown", function (event) {
      const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      const row = document.activeElement.closest("tbody tr");
      const at = row ? links.indexOf(row.querySelector("th a")) : -1;
      if (event.key === "j" && at < links.length - 1) links[at + 1].focus();
      else if (event.key === "k" && at > 0) links[at - 1].focus();
      else if (event.key === "x" && at >= 0) boxes[at].click();
      else if (event.key === "c" && !form.querySelector("button[type=submit]").disabled) form.requestSubmit();
      else return;
      event.preventDefault();
    });
  }

  // ---- columns -----------------------------------------------------------------------------------

  function columns() {
    const menu = document.getElementById("columns");
    const find = document.getElementById("find-column");
    let filled = false;
    find.hidden = false;

    function narrow() {
      const text = find.value.toLowerCase();
      for (const label of menu.querySelectorAll(".choices label")) label.hidden = !!text && !label.textContent.toLowerCase().includes(text);
    }

    menu.addEventListener("toggle", function () {
      if (!menu.open) return;
      find.focus();
      if (filled) return;
      filled = true;
      fetchNames().then(function (found) {
        for (const space of SPACES) {
          const group = menu.querySelector("fieldset[data-space=" + space + "]");
          const known = new Set([...group.querySelectorAll("input")].map(function (input) { return input.value; }));
          for (const name of found[space]) {
            const key = space + "." + name;
            if (known.has(key)) continue;
            const label = document.createElement("label");
            label.className = "tick";
            const box = document.createElement("input");
            box.type = "checkbox";
            box.name = "col";
            box.value = key;
            label.append(box, " " + name);
            group.append(label);
          }
          group.hidden = group.children.length < 2;
        }
        narrow();
      });
    });
    find.addEventListener("input", narrow);
    find.addEventListener("keydown", function (event) { if (event.key === "Enter") event.preventDefault(); });
  }

  if (!field) return;
  complete();
  ticks();
  columns();
  document.querySelectorAll("select[data-submit]").forEach(function (select) {
    select.addEventListener("change", function () { select.form.requestSubmit(); });
  });
  document.addEventListener("keydown", function (event) {
    if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    field.focus();
    field.select();
  });
})();
