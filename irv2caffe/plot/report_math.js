'use strict';
// What the report's drawing needs beside the page: numbers on scales, means, lines, a memory.

// What the reader has chosen, over a reload of the page.
function recall() {
  try { return JSON.parse(sessionStorage.getItem('chosen:' + location.pathname)); }
  catch { return null; }
}

function remember(chosen) {
  try { sessionStorage.setItem('chosen:' + location.pathname, JSON.stringify(chosen)); }
  catch { /* storage may be closed to local files */ }
}

function show(value) {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6) return value.toExponential(2).replace(/\.?0+e/, 'e');
  if (size >= 1000) return Math.round(value).toLocaleString('en');
  return size < 1e-3 ? value.toExponential(2).replace(/\.?0+e/, 'e') : String(+value.toPrecision(4));
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= rough) || rough;
  const found = [];
  const start = Math.ceil(low / step);  // counted: a step may be too small to change a number
  for (let n = 0; n <= 2 * count && (start + n) * step <= high + step * 1e-9; n++) {
    found.push(+((start + n) * step).toPrecision(12));
  }
  return found;
}

// At most `count` numbers: 1, 2 and 5 of each decade where there is room, else whole decades,
// else every second, third ... of them.
function logTicks(low, high, count) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const decades = Math.log10(high / low);
  const factors = 3 * decades <= count ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil(decades / count));
  const found = [];
  for (let power = Math.ceil(first / every) * every; power <= last; power += every) {
    for (const n of factors) {
      const at = +(n * 10 ** power).toPrecision(6);
      if (at >= low && at <= high) found.push(at);
    }
  }
  return found.length > 1 ? found : [low, high].map(value => +value.toPrecision(3));
}

// The place of the value nearest to `at` in ascending values.
function nearest(values, at) {
  let low = 0, high = values.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] < at) low = middle; else high = middle;
  }
  return Math.abs(values[low] - at) <= Math.abs(values[high] - at) ? low : high;
}

// Straight between points, and at their ends' value beyond.
function interpolate(from, to, at) {
  let low = 0, high = from.length - 1;
  if (at <= from[low]) return to[low];
  if (at >= from[high]) return to[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (from[middle] <= at) low = middle; else high = middle;
  }
  return to[low] + (to[high] - to[low]) * (at - from[low]) / (from[high] - from[low]);
}

// Each point's mean with up to `count - 1` points before it: nothing that came later. It begins
// anew where displays are missing, and after the points that are not in view.
function trailingMeans(values, count, breaks, isVisible) {
  const starts = new Set(breaks), found = [];
  let first = 0, sum = 0, wasVisible = false;
  for (let at = 0; at < values.length; at++) {
    const visible = isVisible(at);
    if (starts.has(at) || (visible && !wasVisible)) { first = at; sum = 0; }
    wasVisible = visible;
    sum += values[at];
    if (at - first >= count) sum -= values[first++];
    found.push(sum / (at - first + 1));
  }
  return found;
}

// A line through points as SVG's path: interrupted where a point is not near or is no place, and
// before the points that breaks names.
function pathOf(at, values, x, y, isNear, {steps, breaks} = {}) {
  const starts = new Set(breaks);
  let text = '', pen = 'M', first = true;
  for (let n = 0; n < at.length; n++) {
    const px = x(at[n]), py = y(values[n]);
    if (starts.has(n)) pen = 'M';
    if (!isNear(at, n) || !Number.isFinite(px) || !Number.isFinite(py)) { pen = 'M'; continue; }
    if (steps && !first && pen === 'L') text += `H${px.toFixed(1)}`;
    text += `${pen}${px.toFixed(1)},${py.toFixed(1)}`;
    pen = 'L'; first = false;
  }
  return text;
}
