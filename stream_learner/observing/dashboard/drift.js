// Drift: its four kinds, features by time, and how the values of one are spread.
import * as drawing from "drawing";
import { digits, element, number, utc } from "words";

const HEAT_COLUMNS = 48;
const { LOOKS } = drawing;
const page = Object.fromEntries(["feature", "look", "kinds"].map((id) => [id, document.getElementById(id)]));
const shown = { asked: [], feature: null, look: null };
const at = (verdict) => verdict.slide_end / 1000;

export function show(asked) {
  shown.asked = asked;
  showKinds(asked);
  const recent = asked.filter((v) => Object.keys(v.psi ?? {}).length).slice(-HEAT_COLUMNS);
  const features = [...new Set(recent.flatMap((v) => Object.keys(v.psi)))].sort();
  const feature = features.includes(shown.feature) ? shown.feature : mostDrifted(recent, features);
  const found = recent.findLast((v) => (v.drift?.findings ?? []).some(({ subject }) => subject === feature));
  const look = recent.find((v) => v.slide_end === shown.look) ?? found ?? recent.at(-1);
  const times = recent.map((v) => utc(v.slide_end).slice(5));
  options(page.feature, features, features, feature);
  options(page.look, recent.map((v) => v.slide_end).reverse(), times.toReversed(), look?.slide_end);
  const cells = recent.flatMap((v, x) => features.map((name, y) => [x, y, v.psi[name] ?? 0]));
  drawing.heat("heat", times, features, cells, (name, x) => choose(name, x === null ? null : recent[x].slide_end));
  drawing.lines("one", [{ name: `PSI of ${feature ?? "–"}`, colour: LOOKS.bad,
    data: recent.map((v) => [at(v), number(v.psi[feature])]) }], { mark: 0.25, yAxis: { scale: false } });
  const { bins, now, reference } = look?.drift?.shares?.[feature] ?? { bins: [], now: [], reference: [] };
  drawing.spread("spread", bins, [{ name: `${feature ?? "–"}, reference`, colour: LOOKS.other, data: reference },
    { name: `${feature ?? "–"}, ${look ? utc(look.slide_end) : "now"}`, colour: LOOKS.bad, data: now }]);
}

function options(select, values, texts, chosen) {
  select.replaceChildren(...values.map((value, i) => element("option", texts[i], { value })));
  select.value = chosen ?? "";
}

const REFERENCES = { champion: "what the version in service was trained on", last_week: "the same hours a week before",
  fixed: "the first examples ever" };

function showKinds(asked) {
  const last = asked.at(-1)?.drift;
  const reference = REFERENCES[last?.reference] ?? "the reference";
  const against = { inputs: reference, labels: reference, relation: "the loss that the version in service expects of itself",
    predictions: "its scores on what it was trained on; the candidate, those of the version in service" };
  page.kinds.replaceChildren(...Object.entries(against).map(([kind, held]) => {
    const found = (last?.findings ?? []).filter((finding) => finding.kind === kind);
    const told = found.map((f) => `${f.measure} ${digits(f.value, 3)} of ${f.subject}`).join("; ");
    const looks = asked.filter((v) => (v.drift?.findings ?? []).some((finding) => finding.kind === kind)).length;
    const row = element("tr", null);
    row.append(element("th", kind, { scope: "row" }), element("td", held),
      element("td", told || (last ? "quiet" : "–"), { class: told ? "bad" : "good" }),
      element("td", `${looks} of ${asked.length}`));
    return row;
  }));
}

// The feature of the newest alarm, the strongest of them; without alarms that of the largest PSI now. A large PSI alone
// says little: ids that come and go have one all the time.
function mostDrifted(recent, features) {
  const alarms = recent.toReversed().flatMap((v) => v.drift?.findings ?? []).filter((f) => f.kind === "inputs");
  const found = alarms.find((finding) => features.includes(finding.subject));
  const now = recent.at(-1)?.psi ?? {};
  return found?.subject ?? features.toSorted((a, b) => (now[b] ?? 0) - (now[a] ?? 0))[0] ?? null;
}

function choose(feature, look) {
  shown.feature = feature;
  shown.look = look;
  show(shown.asked);
}

for (const select of Object.values(page).slice(0, 2)) {
  select.addEventListener("change", () => choose(page.feature.value, Number(page.look.value)));
}
