'use strict';
// Draws the curves in #data into #chart: hover shows values, dragging zooms, a double click undoes.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const chart = document.getElementById('chart');
  const legend = document.getElementById('legend');
  const tip = document.getElementById('tip');
  const SVG = 'http://www.w3.org/2000/svg';
  const WIDTH = 1060, LEFT = 58, RIGHT = 58, GAP = 26;
  const HEIGHTS = {main: 420, value: 160, lr: 110, rate: 110};
  const hidden = new Set();
  let view = restored() || data.view || [data.first, data.last];
  let logLoss = data.logLoss;
  let dragged = null;
  let panels = [];

  function restored() {
    try { return JSON.parse(sessionStorage.getItem('view:' + location.pathname)); }
    catch { return null; }
  }

  function remember() {
    const whole = view[0] <= data.first && view[1] >= data.last;
    try { sessionStorage.setItem('view:' + location.pathname, JSON.stringify(whole ? null : view)); }
    catch { /* storage may be closed to local files */ }
  }

  function make(parent, name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function show(value) {
    if (value === 0) return '0';
    const size = Math.abs(value);
    if (size >= 1000) return Math.round(value).toLocaleString('en');
    return size < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(4));
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

  function logTicks(low, high) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const n of [1, 2, 5]) {
        const at = n * 10 ** power;
        if (at >= low && at <= high) found.push(+at.toPrecision(6));
      }
    }
    return found.length > 1 ? found : [low, high].map(value => +value.toPrecision(3));
  }

  function inView(curve) {
    const points = [];
    for (let place = 0; place < curve.x.length; place++) {
      if (curve.x[place] >= view[0] && curve.x[place] <= view[1]) points.push(curve.y[place]);
    }
    return points;
  }

  // A scale for the curves of one side of a panel: from zero for the whole run, else their own.
  // What is above the ceiling is left out, unless nothing else is in view: a loss that exploded.
  function scale(curves, top, height, isLog, ceiling) {
    const values = curves.filter(curve => !hidden.has(curve.key)).flatMap(inView);
    if (!values.length) return null;
    let low = values.reduce((a, b) => Math.min(a, b));
    let high = values.reduce((a, b) => Math.max(a, b));
    const whole = view[0] <= data.first && view[1] >= data.last;
    if (isLog && low > 0) {
      const factor = high > low ? (high / low) ** .05 : 2;
      low /= factor;
      high *= factor;
      const y = value => top + height * (1 - Math.log(value / low) / Math.log(high / low));
      return {y, ticks: logTicks(low, high)};
    }
    if (ceiling && low < ceiling) high = Math.min(high, ceiling);
    if (whole) low = Math.min(0, low);
    if (high <= low) { low -= 1; high += 1; }
    const room = (high - low) * .04;
    if (!whole || low < 0) low -= room;
    high += room;
    const y = value => top + height * (1 - (value - low) / (high - low));
    return {y, ticks: ticks(low, high, Math.max(3, height / 60))};
  }

  const x = value => LEFT + (WIDTH - LEFT - RIGHT) * (value - view[0]) / (view[1] - view[0]);
  const place = px => view[0] + (px - LEFT) / (WIDTH - LEFT - RIGHT) * (view[1] - view[0]);

  function path(curve, y) {
    let text = '', pen = 'M', first = true;
    for (let at = 0; at < curve.x.length; at++) {
      const inside = curve.x[at] >= view[0] && curve.x[at] <= view[1];
      const near = inside || (at + 1 < curve.x.length && curve.x[at + 1] >= view[0]
        && curve.x[at] <= view[1]) || (at > 0 && curve.x[at - 1] <= view[1] && curve.x[at] >= view[0]);
      if (!near || !Number.isFinite(y(curve.y[at]))) { pen = 'M'; continue; }
      const px = x(curve.x[at]).toFixed(1), py = y(curve.y[at]).toFixed(1);
      if (curve.steps && !first && pen === 'L') text += `H${px}`;
      text += `${pen}${px},${py}`;
      pen = 'L'; first = false;
    }
    return text;
  }

  function drawPanel(svg, name, top) {
    const height = HEIGHTS[name];
    const curves = data.curves.filter(curve => curve.panel === name);
    const clip = `clip-${name}`;
    const defs = make(svg, 'clipPath', {id: clip});
    make(defs, 'rect', {x: LEFT, y: top - 4, width: WIDTH - LEFT - RIGHT, height: height + 8});
    const sides = {
      left: scale(curves.filter(curve => curve.side === 'left'), top, height, name === 'lr' && data.logRates),
      right: scale(curves.filter(curve => curve.side === 'right'), top, height, logLoss,
        name === 'main' && data.lossTop),
    };
    for (const at of ticks(view[0], view[1], 10)) {
      make(svg, 'line', {class: 'grid', x1: x(at), x2: x(at), y1: top, y2: top + height});
    }
    for (const [side, found] of Object.entries(sides)) {
      if (!found) continue;
      for (const at of found.ticks) {
        const y = found.y(at), left = side === 'left';
        if (y < top - 1 || y > top + height + 1) continue;
        if (left) make(svg, 'line', {class: 'grid', x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y});
        make(svg, 'text', {x: left ? LEFT - 6 : WIDTH - RIGHT + 6, y: y + 4,
          'text-anchor': left ? 'end' : 'start'}, show(at));
      }
      const label = data.labels[name][side], middle = top + height / 2;
      const at = side === 'left' ? 13 : WIDTH - 6;
      make(svg, 'text', {x: at, y: middle, 'text-anchor': 'middle',
        transform: `rotate(-90 ${at} ${middle})`}, label);
    }
    const inside = make(svg, 'g', {'clip-path': `url(#${clip})`});
    for (const mark of data.marks) {
      if (mark.to !== undefined) {
        make(inside, 'rect', {x: x(mark.x), y: top, width: Math.max(0, x(mark.to) - x(mark.x)),
          height, fill: mark.color, opacity: .08});
      }
      const line = make(inside, 'line', {x1: x(mark.x), x2: x(mark.x), y1: top, y2: top + height,
        stroke: mark.color, 'stroke-dasharray': mark.dash || 'none', class: 'mark'});
      make(line, 'title', {}, mark.text);
    }
    for (const curve of curves) {
      const found = sides[curve.side];
      if (hidden.has(curve.key) || !found) continue;
      make(inside, 'path', {class: 'curve', d: path(curve, found.y), stroke: curve.color,
        'stroke-width': curve.width, 'stroke-dasharray': curve.dash || 'none',
        opacity: curve.opacity || 1});
      if (!curve.marker) continue;
      for (let at = 0; at < curve.x.length; at++) {
        make(inside, 'circle', {cx: x(curve.x[at]), cy: found.y(curve.y[at]), r: 3.5,
          fill: curve.color});
      }
    }
    make(svg, 'rect', {class: 'frame', x: LEFT, y: top, width: WIDTH - LEFT - RIGHT, height});
    return {top, height, curves, sides};
  }

  function draw() {
    chart.querySelector('svg')?.remove();
    const names = ['main', 'value', 'lr', 'rate'].filter(
      name => data.curves.some(curve => curve.panel === name));
    const total = 14 + names.reduce((sum, name) => sum + HEIGHTS[name] + GAP, 0) + 18;
    const svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('viewBox', `0 0 ${WIDTH} ${total}`);
    chart.prepend(svg);
    let top = 10;
    panels = names.map(name => {
      const panel = drawPanel(svg, name, top);
      top += HEIGHTS[name] + GAP;
      return panel;
    });
    for (const at of ticks(view[0], view[1], 10)) {
      make(svg, 'text', {x: x(at), y: top - GAP + 18, 'text-anchor': 'middle'}, show(at));
    }
    make(svg, 'text', {x: WIDTH / 2, y: top + 8, 'text-anchor': 'middle'}, data.unit);
    svg.append(cross, zoom);
  }

  const cross = document.createElementNS(SVG, 'line');
  cross.setAttribute('class', 'cross');
  const zoom = document.createElementNS(SVG, 'rect');
  zoom.setAttribute('class', 'zoom');

  function nearest(values, at) {
    let low = 0, high = values.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (values[middle] < at) low = middle; else high = middle;
    }
    return Math.abs(values[low] - at) <= Math.abs(values[high] - at) ? low : high;
  }

  function pixel(event) {
    const box = chart.querySelector('svg').getBoundingClientRect();
    return (event.clientX - box.left) * WIDTH / box.width;
  }

  function hover(event) {
    const px = Math.min(Math.max(pixel(event), LEFT), WIDTH - RIGHT), at = place(px);
    const bottom = panels[panels.length - 1];
    for (const [key, value] of Object.entries({x1: px, x2: px, y1: panels[0].top,
      y2: bottom.top + bottom.height})) cross.setAttribute(key, value);
    if (dragged !== null) {
      const [from, to] = [Math.min(dragged, px), Math.max(dragged, px)];
      for (const [key, value] of Object.entries({x: from, y: panels[0].top, width: to - from,
        height: bottom.top + bottom.height - panels[0].top})) zoom.setAttribute(key, value);
    }
    tip.replaceChildren();
    const head = document.createElement('b');
    head.textContent = `${data.unit} ${show(at)}`;
    tip.append(head);
    for (const curve of [...data.curves].sort((a, b) => !!a.behind - !!b.behind)) {
      if (hidden.has(curve.key) || !curve.tip || !curve.x.length) continue;
      const found = nearest(curve.x, at), off = Math.abs(x(curve.x[found]) - px);
      const [first, last] = [curve.x[0], curve.x[curve.x.length - 1]];
      if (off > 40 && (at < first || at > last)) continue;
      const row = document.createElement('div'), name = document.createElement('span');
      const dot = document.createElement('i'), value = document.createElement('span');
      dot.style.background = curve.color;
      name.append(dot, curve.name);
      value.textContent = show(curve.y[found]) + (curve.unit || '')
        + (off > 15 && !curve.flat ? ` (at ${show(curve.x[found])})` : '');
      value.dataset.key = curve.key;
      row.append(name, value);
      tip.append(row);
    }
    tip.hidden = false;
    const box = chart.getBoundingClientRect(), left = event.clientX - box.left;
    const flips = left > box.width / 2;
    tip.style.left = flips ? '' : `${left + 16}px`;
    tip.style.right = flips ? `${box.width - left + 16}px` : '';
    tip.style.top = `${Math.max(0, event.clientY - box.top - 30)}px`;
  }

  function leave() {
    tip.hidden = true;
    for (const key of ['x1', 'x2', 'y1', 'y2']) cross.setAttribute(key, -9);
  }

  function zoomTo(from, to) {
    view = [from, to];
    remember();
    draw();
  }

  chart.addEventListener('mousemove', hover);
  chart.addEventListener('mouseleave', leave);
  chart.addEventListener('mousedown', event => { dragged = pixel(event); event.preventDefault(); });
  addEventListener('mouseup', event => {
    if (dragged === null) return;
    const [from, to] = [dragged, pixel(event)].sort((a, b) => a - b);
    dragged = null;
    zoom.setAttribute('width', 0);
    if (to - from > 8) {
      zoomTo(Math.max(data.first, place(from)), Math.min(data.last, place(to)));
    }
  });
  chart.addEventListener('dblclick', () => zoomTo(data.first, data.last));
  document.getElementById('whole').addEventListener('click', () => zoomTo(data.first, data.last));
  document.getElementById('log').checked = logLoss;
  document.getElementById('log').addEventListener('change', event => {
    logLoss = event.target.checked;
    draw();
  });

  for (const entry of data.legend) {
    const label = document.createElement('label'), box = document.createElement('input');
    const line = document.createElement('i');
    box.type = 'checkbox';
    box.checked = true;
    line.style.borderTopColor = entry.color;
    line.style.borderTopStyle = entry.dash ? 'dashed' : 'solid';
    box.addEventListener('change', () => {
      for (const key of entry.keys) box.checked ? hidden.delete(key) : hidden.add(key);
      draw();
    });
    label.append(box, line, entry.name);
    legend.append(label);
  }
  if (!(view[0] < view[1]) || view[0] < data.first || view[1] > data.last) {
    view = [data.first, data.last];
  }
  draw();
  leave();
})();
