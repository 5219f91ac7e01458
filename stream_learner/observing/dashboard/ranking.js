// What is told of next_item beside what it has in common with conversion.
import * as drawing from "drawing";
import { digits, element, whole } from "words";

const { LOOKS } = drawing;
const PARTS = { all: "all", new_item: "new items", short_session: "short sessions" };
const NAMES = { recall: "Recall", mrr: "MRR", ndcg: "NDCG" };

const depth = (numbers) => Math.max(0, ...Object.keys(numbers ?? {}).map((name) => Number(/^mrr@(\d+)$/.exec(name)?.[1] ?? 0)));
const share = (value) => (typeof value === "number" ? `${(100 * value).toFixed(1)} %` : "–");
const named = (metric) => metric.replace(/^\w+/, (name) => NAMES[name] ?? name);

// Headings of the versions' table and what stands below them.
export function columns(versions) {
  const k = depth(versions.at(-1)?.metrics);
  return [[`Recall@${k}`, (m) => digits(m[`recall@${k}`])], [`MRR@${k}`, (m) => digits(m[`mrr@${k}`])],
    ["Items", (m) => whole(m.catalogue)], ["Examples", (m) => whole(m.n)]];
}

export function inService(metrics) {
  const k = depth(metrics);
  return [[`Recall@${k}`, digits(metrics?.[`recall@${k}`])], [`MRR@${k}`, digits(metrics?.[`mrr@${k}`])],
    ["Items that can be recommended", whole(metrics?.catalogue)], ["Of them in any ranking", share(metrics?.coverage)]];
}

// `evidence` holds the candidate's MRR since the last version and its gain over the champion on the same examples.
export function show(asked, versions) {
  const k = depth(asked.at(-1)?.evidence), at = (verdict) => verdict.slide_end / 1000;
  const of = (name) => asked.map((verdict) => [at(verdict), verdict.evidence[name] ?? null]);
  const champion = asked.map((verdict) => {
    const { [`mrr@${k}`]: mrr, gain, n, since_version_n: both } = verdict.evidence;
    return [at(verdict), both && both === n ? mrr - gain : null];
  });
  drawing.lines("mrr", [
    { name: `candidate, MRR@${k}`, colour: LOOKS.candidate, data: of(`mrr@${k}`) },
    { name: "champion", colour: LOOKS.champion, data: champion },
  ]);
  drawing.lines("recall", [{ name: `candidate, Recall@${k}`, colour: LOOKS.candidate, data: of(`recall@${k}`) }]);
  const made = (name) => versions.map((version) => [version.slide_end_us / 1000, version.metrics[name] ?? null]);
  drawing.lines("catalogue", [
    { name: "items", colour: LOOKS.candidate, data: made("catalogue"), showSymbol: true },
    { name: "share of them in any ranking", colour: LOOKS.champion, data: made("coverage"), yAxisIndex: 1, showSymbol: true },
  ], { yAxis: [{}, { min: 0, max: 1, splitLine: { show: false } }] });
}

// The live metrics by model and kind of example.
export function slices(found, page) {
  const rows = new Map(), metrics = new Set();
  for (const [{ model, slice, metric }, value] of found) {
    metrics.add(metric);
    const name = `${model}, ${PARTS[slice] ?? slice}`;
    rows.set(name, { ...rows.get(name), [metric]: value });
  }
  const head = element("tr", null);
  head.append(...["Model and examples", ...[...metrics].map(named)].map((text) => element("th", text, { scope: "col" })));
  page["rankings-head"].replaceChildren(head);
  page.rankings.replaceChildren(...[...rows].map(([name, values]) => {
    const row = element("tr", null);
    row.append(element("th", name, { scope: "row" }), ...[...metrics].map((metric) => element("td", digits(values[metric]))));
    return row;
  }));
}
