// The pictures: ECharts options from plain series, in the page's own colours.
import { getInstanceByDom, init } from "charts";

const drawn = new Map();  // element id -> the options last given, to be drawn again in other colours

export const LOOKS = { candidate: "#2f7de1", champion: "#e08a1e", other: "#8a94a3", good: "#2aa36b", bad: "#d65a34" };

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { text: of("--text"), soft: of("--soft"), line: of("--line"), card: of("--card") };
}

export function draw(id, options) {
  drawn.set(id, options);
  const element = document.getElementById(id);
  const chart = getInstanceByDom(element) ?? init(element, null, { renderer: "canvas" });
  if (chart.getWidth() !== element.clientWidth) chart.resize();  // it was hidden while the window changed
  const tint = colours();
  chart.setOption({
    animation: false,
    aria: { enabled: true },
    textStyle: { color: tint.text },
    grid: { left: 8, right: 14, top: 30, bottom: 8, containLabel: true },
    tooltip: { trigger: "axis", confine: true, backgroundColor: tint.card, borderColor: tint.line,
      textStyle: { color: tint.text } },
    legend: { top: 0, type: "plain", textStyle: { color: tint.soft }, itemHeight: 8 },
    ...options(tint),
  }, { notMerge: true });
  return chart;
}

export function redraw() {
  for (const [id, options] of drawn) draw(id, options);
}

new ResizeObserver((entries) => {
  for (const entry of entries) getInstanceByDom(entry.target)?.resize();
}).observe(document.body);
addEventListener("resize", () => { for (const id of drawn.keys()) getInstanceByDom(document.getElementById(id))?.resize(); });

const axis = (tint, more = {}) => ({
  axisLine: { lineStyle: { color: tint.line } }, axisLabel: { color: tint.soft, hideOverlap: true },
  splitLine: { lineStyle: { color: tint.line } }, ...more,
});
// The first and last label stay inside, beside those of the other axis.
const along = (tint, more = {}) => ({ color: tint.soft, hideOverlap: true, alignMinLabel: "left", alignMaxLabel: "right", ...more });
const clock = (tint) => axis(tint, { type: "time", splitLine: { show: false }, axisLabel: along(tint) });
const amount = (tint, more) => axis(tint, { type: "value", scale: true, ...more });

const line = (name, colour, data, more = {}) => ({
  name, type: "line", data, showSymbol: false, connectNulls: false,
  lineStyle: { width: 2, color: colour }, itemStyle: { color: colour }, ...more,
});

export function lines(id, series, { yAxis = {}, mark = null, time = true } = {}) {
  draw(id, (tint) => ({
    useUTC: true,
    xAxis: time ? clock(tint) : axis(tint, { type: "value", splitLine: { show: false },
      axisLabel: along(tint, { formatter: "{value} s" }) }),
    yAxis: Array.isArray(yAxis) ? yAxis.map((y) => amount(tint, y)) : amount(tint, yAxis),
    series: series.map(({ name, colour, data, ...more }, at) => line(name, colour, data, {
      ...more,
      markLine: mark !== null && at === 0 ? { silent: true, symbol: "none", label: { show: false },
        lineStyle: { type: "dashed", color: tint.soft }, data: [{ yAxis: mark }] } : undefined,
    })),
  }));
}

// A gain with its band, the threshold it must pass, a triangle where a version was made, and where an input began to move.
export function gain(id, points, published, moved) {
  const band = points.filter((p) => p.lower !== null && p.upper !== null);
  draw(id, (tint) => ({
    useUTC: true,
    grid: { left: 8, right: 14, top: 44, bottom: 8, containLabel: true },
    legend: { top: 0, textStyle: { color: tint.soft }, itemHeight: 8, data: ["gain", "threshold", "version published"] },
    xAxis: clock(tint),
    yAxis: amount(tint),
    series: [
      line("lower", "transparent", band.map((p) => [p.at, p.lower]), { stack: "band", stackStrategy: "all",
        lineStyle: { opacity: 0 }, tooltip: { show: false } }),
      line("band", LOOKS.candidate, band.map((p) => [p.at, p.upper - p.lower]), { stack: "band", stackStrategy: "all",
        lineStyle: { opacity: 0 }, areaStyle: { color: LOOKS.candidate, opacity: 0.18 }, tooltip: { show: false } }),
      line("gain", LOOKS.candidate, points.map((p) => [p.at, p.gain]), { showSymbol: points.length < 40, symbolSize: 5,
        markLine: moved ? { silent: true, symbol: "none", label: { formatter: moved.text, color: tint.soft },
          lineStyle: { type: "dotted", color: LOOKS.bad }, data: [{ xAxis: moved.at }] } : undefined }),
      line("threshold", LOOKS.other, points.map((p) => [p.at, p.threshold]), { step: "end",
        lineStyle: { type: "dashed", width: 1.5, color: LOOKS.other } }),
      { name: "version published", type: "scatter", symbol: "triangle", symbolSize: 11,
        itemStyle: { color: LOOKS.good }, data: published },
    ],
  }));
}

let onHeat = null;

export function heat(id, times, features, cells, chosen) {
  const chart = draw(id, (tint) => ({
    grid: { left: 8, right: 14, top: 8, bottom: 34, containLabel: true },
    legend: { show: false },
    tooltip: { confine: true, backgroundColor: tint.card, borderColor: tint.line, textStyle: { color: tint.text },
      formatter: ({ value }) => `${features[value[1]]}<br>${times[value[0]]}<br>PSI ${value[2].toFixed(3)}` },
    xAxis: axis(tint, { type: "category", data: times }),
    yAxis: axis(tint, { type: "category", data: features }),
    visualMap: { min: 0, max: 0.5, orient: "horizontal", left: "center", bottom: 0, itemHeight: 90, itemWidth: 10,
      text: ["0.5", "0"], textStyle: { color: tint.soft },
      inRange: { color: [tint.card, "#f3c97a", "#d65a34"] } },
    series: [{ type: "heatmap", data: cells }],
  }));
  const zr = chart.getZr();
  if (onHeat) zr.off("click", onHeat);
  onHeat = ({ offsetX, offsetY }) => {  // on a square, or beside them on a feature's name
    const here = [offsetX, offsetY], row = [chart.getWidth() - 16, offsetY], inside = chart.containPixel("grid", here);
    if (!chart.containPixel("grid", row)) return;
    const [x, y] = chart.convertFromPixel("grid", inside ? here : row);
    chosen(features[y], inside ? x : null);
  };
  zr.on("click", onHeat);
}

// How values are spread over the same bins, now and in the reference.
export function spread(id, bins, sides) {
  draw(id, (tint) => ({
    tooltip: { trigger: "axis", confine: true, backgroundColor: tint.card, borderColor: tint.line,
      textStyle: { color: tint.text }, valueFormatter: (v) => `${(100 * v).toFixed(1)} %` },
    xAxis: axis(tint, { type: "category", data: bins, splitLine: { show: false } }),
    yAxis: axis(tint, { type: "value", axisLabel: { color: tint.soft, formatter: (v) => `${Math.round(100 * v)} %` } }),
    series: sides.map(({ name, colour, data }) => (
      { name, type: "bar", data, itemStyle: { color: colour }, barMaxWidth: 28, barGap: "5%" })),
  }));
}

export function bars(id, names, values, unit, mark = null) {
  draw(id, (tint) => ({
    grid: { left: 8, right: 24, top: 8, bottom: 8, containLabel: true },
    legend: { show: false },
    tooltip: { trigger: "axis", confine: true, backgroundColor: tint.card, borderColor: tint.line,
      textStyle: { color: tint.text }, valueFormatter: (v) => `${Number(v).toPrecision(3)} ${unit}` },
    xAxis: axis(tint, { type: "value", axisLabel: { color: tint.soft, hideOverlap: true, formatter: `{value} ${unit}` } }),
    yAxis: axis(tint, { type: "category", data: names, inverse: true }),
    series: [{ type: "bar", data: values, itemStyle: { color: LOOKS.candidate }, barMaxWidth: 16,
      markLine: mark === null ? undefined : { silent: true, symbol: "none", label: { show: false },
        lineStyle: { type: "dashed", color: tint.soft }, data: [{ xAxis: mark }] } }],
  }));
}
