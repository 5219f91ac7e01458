// Words and numbers, and the elements that hold them.
export const utc = (us) => (us === null || us === undefined) ? "–" : new Date(us / 1000).toISOString().slice(0, 16).replace("T", " ");
export const digits = (value, n = 4) => (value === null || value === undefined ? "–" : Number(value).toFixed(n));
export const whole = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));
export const number = (value) => (typeof value === "number" ? value : null);
export function bytes(value) {
  if (!value) return "–";
  const [size, unit] = value >= 2 ** 30 ? [2 ** 30, "GiB"] : value >= 2 ** 20 ? [2 ** 20, "MiB"] : [2 ** 10, "KiB"];
  return `${(value / size).toPrecision(3)} ${unit}`;
}
export function span(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "–";
  const [size, unit] = seconds >= 172800 ? [86400, "d"] : seconds >= 5400 ? [3600, "h"] : seconds >= 90 ? [60, "min"] : [1, "s"];
  return `${(seconds / size).toFixed(seconds >= 90 && size > 60 ? 1 : 0)} ${unit}`;
}
export function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
export function facts(target, pairs) {
  target.replaceChildren(...pairs.map(([name, value]) => {
    const pair = element("div", null);
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
}
