// Versions: their table, the difference of two, and the commands that an operator leaves for the worker.
import * as ranking from "ranking";
import { digits, element, utc, whole } from "words";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((one) => [one.id, one]));
const shown = { told: null, lines: [], fixed: false, model: null, compared: [] };

const CONVERSION = [["AUC", (m) => digits(m.auc)], ["NE", (m) => digits(m.normalized_entropy)],
  ["Calibration", (m) => digits(m.calibration, 3)], ["Examples", (m) => whole(m.n)]];

// What operators have pinned, by the log.
function pinned(lines) {
  const held = new Set();
  for (const { kind, version } of lines) {
    if (kind === "pin") held.add(version);
    if (kind === "unpin") held.delete(version);
  }
  return held;
}

function marks(version, champion, held) {
  const words = [...(version === champion ? ["in service"] : []), ...(held.has(version) ? ["pinned"] : [])];
  return words.length ? ` (${words.join(", ")})` : "";
}

// `told`: a model as /dashboard/versions tells of it; `lines`: those of the log that are about it; `fixed`: nothing can be asked.
export function show(told, lines, fixed) {
  if (told.model !== shown.model) shown.compared = [];
  Object.assign(shown, { told, lines, fixed, model: told.model });
  const { model, task, versions, champion } = told;
  const columns = task === "next_item" ? ranking.columns(versions) : CONVERSION;
  const held = pinned(lines);
  const head = element("tr", null);
  const headings = ["Version", "Made at (UTC)", "After", ...columns.map(([name]) => name), "Compare", "Act"];
  head.append(...headings.map((text) => element("th", text, { scope: "col" })));
  page["versions-head"].replaceChildren(head);
  const rows = versions.toReversed().map((version) => {
    const row = element("tr", null, version.version === champion ? { class: "champion" } : {});
    const after = version.rollback_of ? `rollback of ${version.rollback_of}` : version.parent ?? "–";
    const box = element("input", null, { type: "checkbox", "aria-label": `compare version ${version.version}` });
    box.checked = shown.compared.includes(version.version);
    box.addEventListener("change", () => compare(version.version, box.checked));
    const cell = element("td", null), acts = element("td", null);
    cell.append(box);
    for (const [name, word] of [["rollback", "Roll back"], held.has(version.version) ? ["unpin", "Unpin"] : ["pin", "Pin"]]) {
      if (fixed || (name === "rollback" && version.version === champion)) continue;
      const button = element("button", word, { type: "button", "aria-label": `${word} ${version.version}` });
      button.addEventListener("click", () => ask(name, word, version.version));
      acts.append(button, " ");
    }
    if (!fixed) {
      acts.append(element("a", "Card", { href: `/dashboard/card?version=${version.version}&model=${encodeURIComponent(model)}`,
        "aria-label": `Card of ${version.version}` }));
    }
    row.append(element("td", `${version.version}${marks(version.version, champion, held)}`, { class: "tight" }),
      element("td", utc(version.slide_end_us), { class: "time" }), element("td", String(after)),
      ...columns.map(([, text]) => element("td", text(version.metrics))), cell, acts);
    return row;
  });
  page.versions.replaceChildren(...rows);
  showDifference();
}

function compare(version, wanted) {
  shown.compared = [...shown.compared.filter((other) => other !== version), ...(wanted ? [version] : [])].slice(-2);
  show(shown.told, shown.lines, shown.fixed);
}

function showDifference() {
  const [a, b] = shown.compared.map((number) => shown.told.versions.find((v) => v.version === number));
  if (!a || !b) return page.difference.replaceChildren();
  const flat = (value, path = "") => (value !== null && typeof value === "object" && !Array.isArray(value)
    ? Object.entries(value).flatMap(([key, inner]) => flat(inner, path ? `${path}.${key}` : key))
    : [[path, JSON.stringify(value)]]);
  const left = new Map(flat(a)), right = new Map(flat(b));
  const table = element("table", null), head = element("tr", null);
  head.append(...["", a.version, b.version].map((text) => element("th", String(text), { scope: "col" })));
  table.append(head);
  for (const [key, value] of left) {
    if (value === right.get(key)) continue;
    const row = element("tr", null);
    row.append(element("th", key, { scope: "row" }), element("td", value), element("td", right.get(key) ?? "–"));
    table.append(row);
  }
  page.difference.replaceChildren(table);
}

function ask(name, word, version) {
  page["dialog-title"].textContent = `${word} version ${version} of ${shown.model}?`;
  page["dialog-text"].textContent = {
    rollback: "Its files are served again under a new number. The candidate goes on learning; the gate decides when the next version comes.",
    pin: "It will not be pruned until it is unpinned.",
    unpin: "It may be pruned again, when it is old.",
  }[name];
  page["dialog-error"].textContent = "";
  page.confirm.textContent = word;
  page.dialog.dataset.name = name;
  page.dialog.dataset.version = version;
  page.dialog.showModal();
}

async function send(event) {
  event.preventDefault();
  const { name, version } = page.dialog.dataset;
  const answer = await fetch("/dashboard/commands", {
    method: "POST",
    headers: { Authorization: `Bearer ${page.token.value}`, "Content-Type": "application/json" },
    body: JSON.stringify({ name, version: Number(version), model: shown.model }),
  });
  if (answer.ok) {
    page.token.value = "";
    page.dialog.close();
    page.state.textContent = `${name} ${version} left for the worker`;
  } else {
    page["dialog-error"].textContent = await answer.text();
  }
}

page.cancel.addEventListener("click", () => page.dialog.close());
page.dialog.querySelector("form").addEventListener("submit", send);
