// What happened, in sentences: from the verdict log alone.
import { digits, utc, whole } from "words";

const WHY = {
  examples: "too few judged examples", positives: "too few purchases", min_interval: "too soon after the version before",
  cool_down: "too soon after a rollback", against_champion: "not proven as good as the version in service",
  against_base_rate: "no better than the base rate", auc: "AUC below its floor", calibration: "calibration out of its bounds",
  input_drift: "inputs had just moved", recall: "recall below its floor",
};
const KINDS = { labels: "the labels", relation: "what inputs say of purchases", predictions: "the predictions" };
const times = (count) => (count === 1 ? "once" : `${whole(count)} times`);
const signed = (value) => `${value < 0 ? "" : "+"}${digits(value)}`;

// Stretches of verdicts in a row that found one input moved, the strongest first: {subject, from, to, peak}, places in `asked`.
export function episodes(asked) {
  const found = [], open = new Map();
  asked.forEach((verdict, place) => {
    const moved = (verdict.drift?.findings ?? []).filter(({ kind, subject }) => kind === "inputs" && subject !== "all");
    for (const { subject, value } of moved) {
      const before = open.get(subject);
      const one = before && before.to === place - 1 ? before : { subject, from: place, peak: 0 };
      if (one !== before) found.push(one);
      one.to = place;
      one.peak = Math.max(one.peak, verdict.psi?.[subject] ?? Math.abs(value));
      open.set(subject, one);
    }
  });
  return found.sort((a, b) => b.peak - a.peak);
}

export function story(asked, others, measure) {
  if (!asked.length) return ["The gate has not been asked yet: examples have to come, and where labels are awaited to mature, first."];
  return [gate(asked), drift(asked), alsoFound(asked), beside(others), now(asked.at(-1), measure)].filter(Boolean);
}

function gate(asked) {
  const held = asked.filter((verdict) => !verdict.passed), counts = new Map();
  for (const name of held.flatMap((verdict) => verdict.failed ?? [])) counts.set(name, (counts.get(name) ?? 0) + 1);
  const reasons = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 3)
    .map(([name, count]) => `${WHY[name] ?? name.replaceAll("_", " ")} (${times(count)})`);
  const why = reasons.length ? ` Most often it held because of: ${reasons.join("; ")}.` : "";
  return `Between ${utc(asked[0].slide_end)} and ${utc(asked.at(-1).slide_end)} UTC the gate was asked ${times(asked.length)} `
    + `whether the candidate may go into service: it passed ${times(asked.length - held.length)} and held ${times(held.length)}.${why}`;
}

function drift(asked) {
  const [strongest] = episodes(asked);
  if (!strongest) return null;
  const { subject, from, to, peak } = strongest;
  const ends = to === asked.length - 1 ? "and still does" : `until ${utc(asked[to].slide_end)}`;
  const next = asked.findIndex((verdict, place) => place >= from && verdict.passed);
  const after = next < 0 ? "No version has passed since."
    : `The gate held ${times(next - from)} until ${utc(asked[next].slide_end)}, when the next version passed.`;
  return `The input that moved most was ${subject}, from ${utc(asked[from].slide_end)} ${ends} (PSI up to ${digits(peak, 2)}). ${after}`;
}

function alsoFound(asked) {
  const found = Object.entries(KINDS).flatMap(([kind, words]) => {
    const looks = asked.filter((verdict) => (verdict.drift?.findings ?? []).some((finding) => finding.kind === kind));
    return looks.length ? [`of ${words} ${times(looks.length)} (last ${utc(looks.at(-1).slide_end)})`] : [];
  });
  return found.length ? `Drift was found, too, ${found.join(", ")}.` : null;
}

function beside(others) {
  const count = (test) => others.filter(test).length;
  const told = [
    [count((line) => line.kind === "canary" && line.passed), "a new version stood its first hours beside the one before"],
    [count((line) => line.kind === "canary" && !line.passed), "a new version failed beside the one before, which was served again"],
    [count((line) => line.kind === "degradation"), "the candidate was proven worse and started again"],
    [count((line) => line.kind === "override"), "an operator overrode the gate"],
    [count((line) => line.kind === "rollback"), "an operator rolled back"],
    [count((line) => line.verdict === "quarantined"), "a slide with missing data went into quarantine"],
  ].filter(([number]) => number).map(([number, words]) => `${times(number)} ${words}`);
  return told.length ? `Besides, ${told.join("; ")}.` : null;
}

function now({ evidence, parent }, measure) {
  const { gain, gain_lower: lower, gain_upper: upper } = evidence;
  if (parent === null || typeof gain !== "number") return null;
  const proven = lower > 0 ? "it is proven better" : upper < 0 ? "it is proven worse" : "no difference is proven";
  return `At the last look the candidate's gain over the version before it was ${signed(gain)} in ${measure} `
    + `(${signed(lower)} to ${signed(upper)} at every look): ${proven}.`;
}
