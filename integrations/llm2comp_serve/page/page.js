// The search page. Everything from documents goes into text nodes, never into markup.
const $ = (id) => document.getElementById(id);
const SCORES = {
  dense: "cosine of question and text",
  bm25: "BM25: how rare the words in common are",
  hybrid: "0.3 of meaning and 0.7 of words, each scaled to 0..1",
};
const RESCORED = { "dense+maxsim": "dense, then MaxSim", "hybrid+maxsim": "hybrid, then MaxSim" };
for (const mode of Object.keys(RESCORED)) SCORES[mode] = "MaxSim: sum of the best cosines of memory tokens";
const SHOWN = 700; // characters of a text before "Show all"
let running = null;

function make(name, content, attributes = {}) {
  const element = document.createElement(name);
  element.append(...[content ?? []].flat());
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

async function ask(path, body, signal) {
  const key = sessionStorage.getItem("key");
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body), signal } : { headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached. Is it running?");
  }
  if (response.status === 401) $("key-row").hidden = false;
  const text = await response.text();
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error(`The server failed (status ${response.status}).`);
  }
  if (!response.ok) throw new Error(data.error?.message ?? data.error ?? `The server failed (status ${response.status}).`);
  return { data, timing: response.headers.get("Server-Timing") ?? "" };
}

const wordsOf = (text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];

// A word without its English ending: "baking", "bakes" and "bake" are one.
const stem = (word) => word.replace(/(?<=.{3})(?:ing|ed|es|e|s)$/u, "");

// Parts of the text; words of the question, whatever their ending is, in <mark>.
function marked(text, words) {
  const stems = new Set(words.map(stem));
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(/[\p{L}\p{N}]+/gu)) {
    if (!stems.has(stem(match[0].toLowerCase()))) continue;
    parts.push(text.slice(end, match.index), make("mark", match[0]));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}

function textOf(hit, words) {
  if (hit.text.length <= SHOWN) return [make("p", marked(hit.text, words), { dir: "auto" })];
  const beginning = hit.text.slice(0, SHOWN).replace(/\s\S{0,30}$/u, "");
  const paragraph = make("p", [...marked(beginning, words), " …"], { dir: "auto" });
  const button = make("button", `Show all ${hit.text.length.toLocaleString("en")} characters`, { type: "button" });
  button.addEventListener("click", () => {
    paragraph.replaceChildren(...marked(hit.text, words));
    button.remove();
    paragraph.tabIndex = -1;
    paragraph.focus();
  });
  return [paragraph, button];
}

function factsOf(hit) {
  const shown = Object.entries(hit.metadata).filter(([name]) => !name.startsWith("llm2comp_"));
  const pages = [hit.metadata.llm2comp_page, hit.metadata.llm2comp_last_page].filter((page) => page != null);
  const facts = [["id", hit.id]];
  if (hit.metadata.llm2comp_headings?.length) facts.push(["under", hit.metadata.llm2comp_headings.join(" › ")]);
  if (pages.length) facts.push(["page", pages.join("–")]);
  for (const [name, value] of shown) facts.push([name, typeof value === "string" ? value : JSON.stringify(value)]);
  return make("dl", facts.flatMap(([name, value]) => [make("dt", name), make("dd", value, { dir: "auto" })]));
}

function articleOf(hit, rank, words) {
  const title = make("h3", [`${rank}. `, ...marked(hit.title || hit.id, words)], { dir: "auto" });
  const score = make("span", hit.score.toFixed(3), { class: "score", title: "score" });
  return make("li", make("article", [score, title, ...textOf(hit, words), factsOf(hit)], { tabindex: "-1" }));
}

function columnOf(mode, hits, timing, words) {
  const stages = [...timing.matchAll(/(\w+);dur=([\d.]+)/g)].filter(([, , ms]) => Number(ms));
  const times = stages.map(([, stage, ms]) => `${stage} ${Number(ms).toFixed(1)} ms`);
  const name = $("mode").querySelector(`[value="${mode}"]`).textContent;
  const list = hits.length ? make("ol", hits.map((hit, place) => articleOf(hit, place + 1, words))) : make("p", "No result.");
  const about = make("p", `Score: ${SCORES[mode]}. ${times.join(", ")}`, { class: "quiet" });
  return make("section", [make("h2", name), about, list], { "aria-label": name });
}

function plotOf({ sample, hits }) {
  const width = innerWidth < 600 ? 400 : 800; // on a phone, so that numbers can be read
  const all = [...sample, ...hits];
  const [xs, ys] = [0, 1].map((axis) => all.map((point) => point[axis]));
  const scale = (value, values, size) => {
    const least = Math.min(...values);
    return 20 + ((value - least) / (Math.max(...values) - least || 1)) * (size - 40);
  };
  const node = (name, attributes, content) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (content) element.append(content);
    return element;
  };
  const svg = node("svg", { viewBox: `0 0 ${width} 400`, role: "img", "aria-label": `Map: ${hits.length} results among ${sample.length} documents` });
  for (const [x, y, title] of sample) {
    svg.append(node("circle", { class: "other", r: 3, cx: scale(x, xs, width), cy: scale(y, ys, 400) }, node("title", {}, title)));
  }
  hits.forEach(([x, y, title], place) => {
    const [left, top] = [scale(x, xs, width), scale(y, ys, 400)];
    svg.append(node("circle", { class: "hit", r: 6, cx: left, cy: top }, node("title", {}, title)));
    svg.append(node("text", { x: left + 8, y: top + 4 }, String(place + 1)));
  });
  return svg;
}

async function drawMap(index, hits, signal) {
  $("map").hidden = true;
  if (!hits.length) return;
  const { data } = await ask("v1/map", { index, ids: hits.map((hit) => hit.id) }, signal);
  $("plot").replaceChildren(plotOf(data));
  $("map").hidden = false;
}

function problem(text) {
  $("problem").textContent = text ?? "";
  $("problem").hidden = !text;
}

function clear() {
  running?.abort();
  document.body.classList.remove("busy");
  problem();
  $("status").textContent = "";
  $("columns").replaceChildren();
  $("map").hidden = true;
  document.title = "Search";
}

// What the address names and this server has not, such as an index that is no longer served.
function unknown() {
  const address = new URLSearchParams(location.search);
  for (const id of ["index", "mode", "beside"]) {
    const values = [...$(id).options].map(({ value }) => value);
    if (address.has(id) && !values.includes(address.get(id))) return `There is no ${id} ${address.get(id)} here: choose another.`;
  }
  return null;
}

async function search() {
  const query = $("query").value.trim();
  if (!query) return;
  running?.abort();
  const { signal } = (running = new AbortController());
  if ($("key").value) sessionStorage.setItem("key", $("key").value);
  const body = { index: $("index").value, query, k: Number($("k").value) || 10, where: $("where").value.trim() || null };
  const modes = [...new Set([$("mode").value, $("beside").value])].filter(Boolean);
  const words = wordsOf(query);
  problem();
  $("status").textContent = "Searching …";
  document.body.classList.add("busy");
  document.title = `${query} – Search`;
  try {
    if (!$("index").options.length) await listIndexes();
    if (unknown()) throw new Error(unknown());
    body.index = $("index").value;
    const answers = [];
    for (const value of modes) {
      const [mode, rescore = null] = value.split("+");
      answers.push(await ask("v1/search", { ...body, mode, rescore }, signal));
    }
    $("columns").replaceChildren(...answers.map(({ data, timing }, place) => columnOf(modes[place], data, timing, words)));
    const count = answers[0].data.length;
    $("status").textContent = count === 1 ? "1 result" : `${count} results`;
    await drawMap(body.index, answers[0].data, signal).catch((error) => { if (error.name === "AbortError") throw error; });
  } catch (error) {
    if (error.name === "AbortError") return; // another search has begun
    problem(error.message);
    $("status").textContent = "";
    $("columns").replaceChildren();
    $("map").hidden = true;
  }
  document.body.classList.remove("busy");
}

const FIELDS = ["query:q", "index", "mode", "beside", "k", "where"].map((field) => field.split(":"));

function toAddress() {
  const address = new URLSearchParams();
  for (const [id, name = id] of FIELDS) if ($(id).value) address.set(name, $(id).value);
  const index = new URLSearchParams(location.search).get("index");
  if (index && !$("index").length) address.set("index", index); // the list is not there yet: it needs a key
  history.pushState(null, "", `?${address}`);
}

function fillFromAddress() {
  const address = new URLSearchParams(location.search);
  for (const [id, name = id] of FIELDS) if (address.has(name)) $(id).value = address.get(name);
}

// Back or forward: fields that the address does not name are as on a new page.
function goToAddress() {
  $("form").reset();
  searchFromAddress();
  if (!$("query").value) clear();
}

function searchFromAddress() {
  fillFromAddress();
  if ($("query").value) search();
}

async function listIndexes() {
  const { data } = await ask("v1/indexes");
  if (!data.length) throw new Error("No index is served. Start the server with: llm2comp serve --index NAME=DIR");
  const chosen = new URLSearchParams(location.search).get("index");
  $("index").replaceChildren(
    ...data.map(({ name, documents, problem }) =>
      make("option", `${name} (${problem ? "not available" : documents.toLocaleString("en")})`, { value: name }),
    ),
  );
  for (const id of data.some((index) => index.memory_vectors) ? ["mode", "beside"] : []) {
    for (const [value, name] of Object.entries(RESCORED)) {
      if (!$(id).querySelector(`[value="${value}"]`)) $(id).append(make("option", name, { value }));
    }
  }
  if (chosen !== null) $("index").value = chosen; // none, where it is not served
}

function move(step) {
  const hits = [...document.querySelectorAll("article")];
  const place = hits.indexOf(document.activeElement?.closest("article"));
  hits[Math.min(Math.max(place + step, 0), hits.length - 1)]?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    $("query").select();
  } else if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  for (const list of $("form").querySelectorAll("select")) if (list.value === "" && list.length) list.selectedIndex = 0;
  toAddress();
  search();
});
addEventListener("popstate", goToAddress);
fillFromAddress(); // before the indexes are known, because listing them may fail for want of a key
listIndexes().then(searchFromAddress, (error) => problem(error.message));
