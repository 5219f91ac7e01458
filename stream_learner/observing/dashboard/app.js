// Reads what the worker and its state folder say, and tells it.
import * as drawing from "drawing";
import * as drift from "drift";
import * as ranking from "ranking";
import { episodes, story } from "story";
import * as versions from "versions";
import { bytes, digits, element, facts, number, span, utc, whole } from "words";

const REFRESH_MS = 3000;
const REPLAYED_S = 7 * 86400;
const { LOOKS } = drawing;

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const seen = { verdicts: [], now: null, models: null, chosen: decodeURIComponent(location.hash.slice(1)) };
// The model that is looked at, as /dashboard/versions tells of it; the first one unless another was chosen.
const mine = () => seen.models.find(({ model }) => model === seen.chosen) ?? seen.models[0];

// ---- the live metrics ----

const samples = (name) => seen.now?.metrics[name] ?? [];
const metric = (name, labels = {}) => {
  const found = samples(name).find(([have]) => Object.entries(labels).every(([k, v]) => have[k] === v));
  return found ? found[1] : null;
};
const total = (name) => (samples(name).length ? samples(name).reduce((sum, [, value]) => sum + (value ?? 0), 0) : null);

function showState() {
  const { state, reason } = seen.now.worker;
  page.state.textContent = reason ? `${state}: ${reason}` : state;
  page.state.className = `pill ${{ running: "good", standby: "good", failed: "bad" }[state] ?? ""}`;
  const live = Object.keys(seen.now.metrics).length > 0;
  const { model, task } = mine();
  for (const part of document.querySelectorAll("[data-live], [data-task]")) {
    part.hidden = ("live" in part.dataset && !live) || (part.dataset.task ?? task) !== task;
  }
  page.models.hidden = seen.models.length < 2;
  if (page.choice.length !== seen.models.length) {
    page.choice.replaceChildren(...seen.models.map(({ model: name }) => element("option", name, { value: name })));
  }
  page.choice.value = model ?? "";
}

// How long ago by the clock, where that means something: in a replay of old events it does not.
function byTheClock(name, gauge) {
  const age = Date.now() / 1000 - (metric(gauge) || 0);
  return age < REPLAYED_S ? [[name, span(Math.max(0, age))]] : [];
}

function showService() {
  const { champion, model, task, versions: kept } = mine();
  const asked = judged(), last = asked.at(-1);
  const serving = kept.find((version) => version.version === champion);
  if (model) document.title = page.model.textContent = model;
  const since = serving ? `Version ${champion} has been in service since ${utc(serving.slide_end_us)} UTC of event time.`
    : "No version is in service yet.";
  page.story.textContent = last ? `${since} Last verdict, ${utc(last.slide_end)}: ${last.reason}` : since;
  const mark = metric("watermark_seconds") || (last ? last.slide_end / 1e6 : null);
  const age = serving && mark ? Math.max(0, mark - serving.slide_end_us / 1e6) : null;
  const held = asked.filter((verdict) => !verdict.passed).length;
  const quality = task === "next_item" ? ranking.inService(serving?.metrics) : [
    ["AUC", digits(serving?.metrics.auc)],
    ["Normalized entropy", digits(serving?.metrics.normalized_entropy)],
    ["Calibration", digits(serving?.metrics.calibration, 3)],
  ];
  facts(page.facts, [["Event time", mark ? utc(mark * 1e6) : "–"], ["Age of the version", span(age)],
    ...byTheClock("Behind the clock", "watermark_seconds"), ...(model === seen.models[0].model
      ? byTheClock("Freshness: age of the newest event it knows", "version_newest_event_seconds") : []), ...quality,
    ["Versions kept", whole(kept.length)], ["Verdicts passed / held", `${asked.length - held} / ${held}`]]);
  const others = lines().filter((line) => !line.evidence);
  page.happened.replaceChildren(...story(asked, others, measure()).map((sentence) => element("li", sentence)));
}

function showLabels() {
  const matured = total("matured_total"), positives = total("positives_total");
  facts(page.labels, [
    ["Examples", whole(total("examples_total"))],
    ["Waiting for their label", whole(total("pending_examples"))],
    ["Matured", whole(matured)],
    ["With a purchase", matured ? `${(100 * positives / matured).toFixed(2)} %` : "–"],
    ["Purchases without a click", whole(total("unmatched_purchases_total"))],
    ...samples("quality_ratio").filter(([labels]) => labels.model === "candidate" && labels.metric === "maturity")
      .map(([labels, value]) => [`Labels known, last ${labels.window}`, value === null ? "–" : `${(100 * value).toFixed(1)} %`]),
    ...samples("events_total").map(([labels, value]) => [`Events ${labels.fate}`, whole(value)]),
  ]);
  showJoin();
}

function showReplay() {
  const held = mine().task === "next_item"
    ? [["Events of sessions held", whole(total("session_events"))], ["Items in the catalogue", whole(total("catalogue_items"))]]
    : [["Examples held for replay", whole(total("replay_examples"))], ["Memory of the buffer", bytes(total("replay_size_bytes"))]];
  facts(page.replay, [...held,
    ["Rows learned, fresh", whole(metric("learned_rows_total", { source: "fresh" }))],
    ["Rows learned, replayed", whole(metric("learned_rows_total", { source: "replay" }))],
    ["Loss of the last slide", digits(metric("loss_nats"))],
    ["Slides", whole(total("slides_total"))],
    ["Snapshot", bytes(metric("snapshot_size_bytes"))],
    ["Memory", bytes(metric("resident_memory_bytes"))],
    ["Captures waiting", whole(metric("captures_waiting"))],
  ]);
  if (mine().task !== "conversion") return;
  for (const [id, name, label] of [["ages", "replay_age_ratio", "age"], ["strata", "replay_stratum_ratio", "stratum"]]) {
    const shares = samples(name).map(([labels, value]) => [labels[label], 100 * value]);
    page[id].hidden = !shares.length;
    if (shares.length) drawing.bars(id, shares.map(([part]) => part), shares.map(([, value]) => value), "%");
  }
}

function showJoin() {
  const health = samples("join_health_ratio").map(([{ measure }, value]) => [measure, value]);
  page["join-note"].textContent = health.length
    ? "What the last slide brought of what its season lets expect; 1 is all of it."
    : "The season is not known yet (quarantine.warm_up), or slides are cut by number: nothing is judged.";
  page.join.hidden = !health.length;
  if (health.length) {
    drawing.bars("join", health.map(([measure]) => measure), health.map(([, share]) => share), "", 1);
  }
  facts(page.quarantine, [
    ["Outage now", metric("outage") ? "yes" : "no"],
    ["Slides put into quarantine", whole(total("broken_slides_total"))],
    ...samples("quarantined_examples_total").map(([{ fate }, value]) => [`Examples ${fate.replace("_", " ")}`, whole(value)]),
    ["Kept on disk", bytes(metric("quarantine_size_bytes"))],
  ]);
}

function showQuality() {
  const rows = new Map(), columns = new Set();
  for (const [{ model, metric: name, window }, value] of samples("quality_ratio")) {
    columns.add(`${name} ${window}`);
    rows.set(model, { ...rows.get(model), [`${name} ${window}`]: value });
  }
  const head = element("tr", null);
  head.append(element("th", "Model", { scope: "col" }), ...[...columns].map((c) => element("th", c, { scope: "col" })));
  page["quality-head"].replaceChildren(head);
  page.quality.replaceChildren(...[...rows].map(([model, values]) => {
    const row = element("tr", null);
    row.append(element("th", model, { scope: "row" }), ...[...columns].map((c) => element("td", digits(values[c]))));
    return row;
  }));
}

function showLive() {
  if (mine().task === "next_item") ranking.slices(samples("ranking_quality_ratio"), page);
  else {
    showLabels();
    showQuality();
  }
  showReplay();
  showHistory();
}

// Differences per second between points of a counter's history.
function rates(name) {
  const { seconds, values } = seen.now.history;
  const counts = values[name] ?? [];
  return seconds.slice(1).map((at, i) => {
    const [from, to] = [counts[i], counts[i + 1]];
    return [at, from === null || to === null || to < from ? null : (to - from) / (at - seconds[i])];
  });
}

function showHistory() {
  const { seconds, values } = seen.now.history;
  const level = (name, scale = 1) => seconds.map((at, i) => [at, (values[name]?.[i] ?? null) === null ? null : values[name][i] / scale]);
  drawing.lines("speed", [
    { name: "records/s", colour: LOOKS.other, data: rates("records_total") },
    { name: "learned/s", colour: LOOKS.candidate, data: rates("learned fresh") },
    { name: "replayed/s", colour: LOOKS.champion, data: rates("learned replay") },
  ], { time: false });
  drawing.lines("lag", [
    { name: "lag, records", colour: LOOKS.champion, data: level("lag_records") },
    { name: "memory, MiB", colour: LOOKS.candidate, data: level("resident_memory_bytes", 2 ** 20), yAxisIndex: 1 },
  ], { time: false, yAxis: [{ scale: false }, { splitLine: { show: false } }] });
  const spent = samples("slide_duration_seconds_sum");
  const mean = spent.map(([{ stage }, sum]) => [stage, sum / (metric("slide_duration_seconds_count", { stage }) || 1)]);
  drawing.bars("stages", mean.map(([stage]) => stage), mean.map(([, value]) => value), "s");
}

// ---- the verdict log ----

const at = (verdict) => verdict.slide_end / 1000;
// Lines of the log that name no model are of the one of conversion.
const lines = () => seen.verdicts.filter((line) => (line.model ? line.model === mine().model : mine().task === "conversion"));
const judged = () => lines().filter((line) => line.evidence);
const measure = () => (mine().task === "next_item" ? "MRR" : "normalized entropy");

function showJudging() {
  const asked = judged();
  const rule = (verdict) => (verdict.rules ?? []).find((r) => r.name === "against_champion");
  const points = asked.filter((v) => v.parent !== null).map((v) => ({
    at: at(v), gain: number(v.evidence.gain), lower: number(v.evidence.gain_lower), upper: number(v.evidence.gain_upper),
    threshold: number(rule(v)?.threshold),
  }));
  const published = asked.filter((v) => v.passed).map((v) => [at(v), number(v.evidence.gain) ?? 0]);
  const [moved] = episodes(asked);
  page["gain-note"].textContent = `Gain in ${measure()} since the version in service, with the band that holds at every look. `
    + "Once the whole band is above the dashed threshold that is proven, and the candidate may be published; triangles are versions.";
  drawing.gain("gain", points, published, moved && { at: at(asked[moved.from]), text: `${moved.subject} moves` });
  if (mine().task === "next_item") ranking.show(asked, mine().versions);
  else showQualities(asked);
}

function showQualities(asked) {
  const of = (name) => asked.map((v) => [at(v), number(v.evidence[name])]);
  const baseline = asked.map((v) => [at(v), number(v.baselines?.item_rate?.normalized_entropy)]);
  drawing.lines("ne", [
    { name: "candidate", colour: LOOKS.candidate, data: of("candidate_normalized_entropy") },
    { name: "champion", colour: LOOKS.champion, data: of("champion_normalized_entropy") },
    { name: "item rate", colour: LOOKS.other, data: baseline },
  ], { mark: 1, yAxis: { max: (range) => Math.min(range.max, 1.3) } });
  drawing.lines("calibration", [
    { name: "candidate", colour: LOOKS.candidate, data: of("candidate_calibration") },
    { name: "champion", colour: LOOKS.champion, data: of("champion_calibration") },
  ], { mark: 1, yAxis: { max: (range) => Math.min(range.max, 2) } });
  drift.show(asked);
}

const ended = (line) => line.slide_end ?? line.end_us;

// A line of the log in a word and a sentence; slides in quarantine have a verdict of their own.
function told(line) {
  if (line.verdict === "quarantined") return ["quarantined", `slide ${line.slide}: ${line.reason}`];
  if (line.verdict === "requeued") return ["requeued", `slide ${line.slide}: ${whole(line.examples)} examples are learned from after all`];
  const [word, ...why] = line.reason.split(": ");
  return [word, why.join(": ")];
}

function showVerdicts() {
  const only = page["passed-only"].checked;
  const rows = lines().filter((v) => v.passed || !only).slice(-300).reverse().map((verdict) => {
    const row = element("tr", null);
    const [word, why] = told(verdict);
    row.append(element("td", utc(ended(verdict)), { class: "time" }),
      element("td", word, { class: verdict.passed ? "good" : "bad" }), element("td", why));
    return row;
  });
  page.verdicts.replaceChildren(...rows);
}

// ---- the loop ----

const enclosed = document.getElementById("enclosed");  // a report carries what a worker would answer

async function read(path) {
  if (enclosed) return JSON.parse(enclosed.textContent)[path.split("?")[0]];
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function readVerdicts() {
  const last = seen.verdicts.at(-1);
  const { verdicts } = await read(`/dashboard/verdicts?after=${last ? last.place - 1 : -1}`);
  // the last one known comes again: if it does not, or differs, the log was cut by a restore
  const kept = last && verdicts[0]?.place === last.place && verdicts[0].slide === last.slide;
  if (last && !kept) {
    seen.verdicts = [];
    return readVerdicts();
  }
  seen.verdicts.push(...(last ? verdicts.slice(1) : verdicts));
  return verdicts.length > (last ? 1 : 0);
}

// Whether a version was made of which nothing is known here yet.
function outdated() {
  const served = [metric("champion_version"), seen.models?.length > 1 ? metric("ranking_version") : null];
  return seen.models === null || served.some((version, i) => version && version !== seen.models[i].champion);
}

async function refresh() {
  try {
    const before = seen.verdicts.length;
    seen.now = await read("/dashboard/now");
    const fresh = await readVerdicts();
    if (fresh || seen.verdicts.length !== before || outdated()) {
      seen.models = (await read("/dashboard/versions")).models;
      showAll();
    } else {
      showNow();
    }
    document.body.dataset.slides = total("slides_total") ?? 0;
  } catch (error) {
    page.state.textContent = "the worker does not answer";
    page.state.className = "pill bad";
  }
  if (!enclosed) setTimeout(refresh, document.hidden ? 4 * REFRESH_MS : REFRESH_MS);
}

function showNow() {
  showState();
  showService();
  if (Object.keys(seen.now.metrics).length) showLive();
}

function showAll() {
  showNow();
  versions.show(mine(), lines(), Boolean(enclosed));
  showVerdicts();
  showJudging();
}

function chooseModel() {
  seen.chosen = page.choice.value;
  history.replaceState(null, "", `#${encodeURIComponent(seen.chosen)}`);
  showAll();
}

function switchTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  drawing.redraw();
}

page.theme.addEventListener("click", switchTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawing.redraw);
page.choice.addEventListener("change", chooseModel);
page["passed-only"].addEventListener("change", showVerdicts);
refresh();
