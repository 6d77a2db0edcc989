// The what-if page: a form from the model's card, asked again whenever it changes.
"use strict";

const PAUSE_MS = 150;
const MOST_BARS = 15;
const find = (id) => document.getElementById(id);
let card = null;
let token = "";
let timer = 0;
let asked = 0;
let last = null;

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function show(number) {
  if (number === null || number === undefined) return "no number";
  return Number(number).toLocaleString("en", { maximumSignificantDigits: 6, useGrouping: false });
}

async function call(path, body) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (body) headers["content-type"] = "application/json";
  const method = body ? "POST" : "GET";
  const answer = await fetch(path, { method, headers, body, cache: "no-store" });
  let told = null;
  try {
    told = await answer.json();
  } catch {
    told = { error: { message: `The server answered ${answer.status}.`, hint: "" } };
  }
  return { status: answer.status, told };
}

function complain(told) {
  const problem = find("problem");
  problem.textContent = told ? `${told.error.message} ${told.error.hint}` : "";
  problem.hidden = !told;
}

function start(field) {
  if (field.dtype === "string") return (field.categories || [""])[0] ?? "";
  if (field.dtype === "bool") return "false";
  if (field.minimum === undefined || field.minimum === null) return field.nullable ? "" : "0";
  const middle = (field.minimum + field.maximum) / 2;
  return String(field.dtype === "int64" ? Math.round(middle) : Number(middle.toPrecision(6)));
}

function control(field) {
  const choices = field.dtype === "bool" ? ["true", "false"] : field.categories;
  if (choices && choices.length) {
    const select = make("select");
    if (field.nullable) select.append(make("option", "missing", { value: "\u0000" }));
    for (const choice of choices) select.append(make("option", choice, { value: choice }));
    select.value = start(field);
    return select;
  }
  const input = make("input");
  if (field.dtype !== "string") {
    input.type = "text";
    input.inputMode = "decimal";
  }
  if (field.nullable) input.placeholder = "missing";
  input.value = start(field);
  return input;
}

function note(field) {
  const told = [field.dtype === "string" ? "text" : field.dtype];
  if (field.minimum !== undefined && field.minimum !== null) {
    told.push(`in training ${show(field.minimum)} to ${show(field.maximum)}`);
  }
  if (field.nullable) told.push("may be missing");
  return told.join(", ");
}

function build() {
  const form = find("inputs");
  form.replaceChildren();
  card.inputs.forEach((field, place) => {
    const label = make("label", field.name);
    const input = control(field);
    input.id = `input-${place}`;
    label.append(input, make("small", note(field)));
    form.append(label);
  });
  find("title").textContent = `What if? ${card.deployment}`;
  find("facts").textContent = `${card.model} ${card.semver}, ${card.task}, answers ${card.output}`;
  document.title = `What if? ${card.deployment} - Everloop`;
  const which = find("which");
  const outputs = card.outputs || [];
  which.replaceChildren(...outputs.map((name) => make("option", name, { value: name })));
  find("pick").hidden = !outputs.length;
  find("desk").hidden = false;
}

// The row as JSON text: a whole number is sent as it was typed, since 2^53 is JavaScript's limit.
function row() {
  const parts = [];
  let sound = true;
  card.inputs.forEach((field, place) => {
    const input = find(`input-${place}`);
    const text = input.value.trim();
    const isText = field.dtype === "string";
    const missing = text === "\u0000" || (field.nullable && text === "");
    const patterns = { int64: /^-?\d{1,19}$/, float64: /^-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i, bool: /./ };
    const fits = missing || isText || patterns[field.dtype].test(text);
    input.setAttribute("aria-invalid", String(!fits));
    sound = sound && fits;
    let value = "null";
    if (!missing && isText) value = JSON.stringify(input.value);
    else if (!missing && field.dtype === "float64") value = JSON.stringify(Number(text));
    else if (!missing) value = field.dtype === "int64" ? text.replace(/^(-?)0+(?=\d)/, "$1") : text;
    parts.push(`${JSON.stringify(field.name)}:${value}`);
  });
  return sound ? `{${parts.join(",")}}` : null;
}

function drawAnswer(told) {
  const answer = find("answer");
  answer.classList.remove("busy");
  if (!told.outputs) {
    answer.textContent = show(told.output);
    return;
  }
  const list = make("dl");
  for (const [name, value] of Object.entries(told.outputs)) {
    list.append(make("dt", name), make("dd", show(value)));
  }
  answer.replaceChildren(list);
}

function bar(value, most) {
  const cell = make("td", null, { class: "bar" });
  const piece = make("span", null, { class: value < 0 ? "less" : "more" });
  const width = most ? (Math.abs(value) / most) * 50 : 0;
  piece.style.width = `${width}%`;
  piece.style.left = `${value < 0 ? 50 - width : 50}%`;
  cell.append(piece);
  return cell;
}

function line(name, value, most, extra = {}) {
  const made = make("tr", null, extra);
  made.append(make("th", name, { scope: "row" }));
  made.append(most === null ? make("td") : bar(value, most));
  const sign = most !== null && value > 0 ? "+" : "";
  made.append(make("td", sign + show(value), { class: "number" }));
  return made;
}

function drawWhy(told) {
  const why = told.explanation;
  const table = find("why");
  table.replaceChildren();
  if (!why) {
    find("how").textContent = `Not explained: ${told.unexplained || "the server says nothing"}`;
    return;
  }
  const place = Math.max(0, (card.outputs || []).indexOf(find("which").value));
  const pick = (value) => (Array.isArray(value) ? value[place] : value);
  const values = Object.entries(why.rows[0].values).map(([name, value]) => [name, pick(value)]);
  values.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const shown = values.slice(0, MOST_BARS);
  const rest = values.slice(MOST_BARS).reduce((sum, [, value]) => sum + value, 0);
  const most = Math.max(...values.map(([, value]) => Math.abs(value)), Math.abs(rest));
  table.append(line("base", pick(why.base), null));
  for (const [name, value] of shown) table.append(line(name, value, most));
  if (values.length > MOST_BARS) table.append(line(`${values.length - MOST_BARS} others`, rest, most));
  const total = values.reduce((sum, [, value]) => sum + value, pick(why.base));
  const end = why.scale === "raw" ? "raw score" : "answer";
  table.append(line(end, total, null, { class: "sum" }));
  find("how").textContent =
    why.method === "sampling"
      ? `Against ${why.background} rows of the training data (SHAP, by sampling).`
      : "By the trees themselves (path-dependent TreeSHAP), in the model's raw scale.";
}

async function ask() {
  const text = row();
  if (text === null) return;
  const mine = ++asked;
  find("answer").classList.add("busy");
  const { status, told } = await call("whatif", `{"inputs":[${text}]}`);
  if (mine !== asked) return;
  if (status === 401) return login(told);
  if (status !== 200) return complain(told);
  complain(null);
  last = told;
  drawAnswer(told);
  drawWhy(told);
}

function login(told) {
  find("desk").hidden = true;
  find("login").hidden = false;
  if (token) complain(told);
  find("token").focus();
}

async function open() {
  const { status, told } = await call("./");
  if (status === 401) return login(told);
  if (status !== 200) return complain(told);
  complain(null);
  find("login").hidden = true;
  card = told;
  build();
  await ask();
}

find("inputs").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(ask, PAUSE_MS);
});
find("inputs").addEventListener("submit", (event) => event.preventDefault());
find("which").addEventListener("change", () => last && drawWhy(last));
find("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value.trim();
  open();
});
open();
