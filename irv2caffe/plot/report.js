// Draws the curves in #data into #chart: hover shows values, dragging zooms, a double click undoes.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const chart = document.getElementById('chart');
  const legend = document.getElementById('legend');
  const tip = document.getElementById('tip');
  const SVG = 'http://www.w3.org/2000/svg';
  const WIDTH = 1060, LEFT = 58, RIGHT = 58, GAP = 26;
  const HEIGHTS = {main: 420, value: 160, lr: 110, rate: 110};
  const short = new Intl.NumberFormat('en', {notation: 'compact', maximumSignificantDigits: 3});
  const hidden = new Set();
  const spans = [...new Set([1, 3, 7, 15, 31, 63, 125, 251, 501, 1001, 2501, 5001]
    .filter(span => 4 * span <= data.displays).concat(data.span))].sort((a, b) => a - b);
  // What the reader has chosen; it outlives a reload of the page.
  const chosen = {axis: 'place', view: data.view, logLoss: data.logLoss, logX: false,
    span: data.span, ...recall()};
  const inHours = () => chosen.axis === 'hours' && data.clocks.some(clock => clock);
  const whole = () => inHours() ? data.hours : [data.first, data.last];
  let view, smallest;
  let dragged = null;
  let panels = [];

  function isWhole() { return view[0] <= whole()[0] && view[1] >= whole()[1]; }

  // Places on the axis below: epochs or iterations, or the hours that the run had trained then.
  function placed(values, run) {
    if (!inHours()) return values;
    const clock = data.clocks[run];
    return clock ? values.map(value => interpolate(clock.x, clock.hours, value)) : [];
  }

  function placeCurves() {
    for (const curve of data.curves) {
      curve.at = placed(curve.x, curve.run);
      if (curve.mean) curve.mean.at = placed(curve.mean.x, curve.run);
    }
    smallest = Math.min(...data.curves.map(curve => curve.at.find(at => at > 0) || Infinity));
    const [first, last] = whole();
    view = chosen.view;
    if (!view || !(view[0] < view[1]) || view[0] < first || view[1] > last) view = [first, last];
  }

  // Colors have names in the style rules, where dark mode gives them another value.
  const paint = color => `var(--c${color.slice(1).toLowerCase()})`;
  const isColor = value => typeof value === 'string' && value.startsWith('#');

  function make(parent, name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) {
      if (isColor(value)) made.style[key] = paint(value);
      else made.setAttribute(key, value);
    }
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  const isVisible = at => at >= low() && at <= view[1];
  // Also the points just outside, whose lines reach in.
  const isNear = (at, n) => isVisible(at[n]) || (at[n + 1] >= low() && at[n] <= view[1])
    || (at[n - 1] <= view[1] && at[n] >= low());

  function inView(curve) {
    return curve.y.filter((_, place) => isVisible(curve.at[place]));
  }

  // What is drawn of a curve under its own displays: their mean, where the reader wants one.
  function smooth(curve) {
    const count = curve.mean ? Math.round(chosen.span / curve.mean.per) : 0;
    if (count < 1 || chosen.span === 1) return null;
    const {at, y, breaks, per} = curve.mean;
    return {at, y: trailingMeans(y, count, breaks, n => isVisible(at[n])), breaks, span: count * per};
  }

  // A scale for the curves of one side of a panel: from zero for the whole run, else their own.
  // What is above the ceiling is left out, unless nothing else is in view: a loss that exploded.
  function scale(curves, top, height, isLog, ceiling) {
    const values = curves.filter(curve => !hidden.has(curve.key)).flatMap(inView);
    if (!values.length) return null;
    let low = values.reduce((a, b) => Math.min(a, b));
    let high = values.reduce((a, b) => Math.max(a, b));
    const wide = isWhole();
    if (isLog && low > 0) {
      const factor = high > low ? (high / low) ** .05 : 2;
      low /= factor;
      high *= factor;
      const y = value => top + height * (1 - Math.log(value / low) / Math.log(high / low));
      return {y, ticks: logTicks(low, high, height / 22)};
    }
    if (ceiling && low < ceiling) high = Math.min(high, ceiling);
    if (wide) low = Math.min(0, low);
    if (high <= low) { low -= 1; high += 1; }
    const room = (high - low) * .04;
    if (!wide || low < 0) low -= room;
    high += room;
    const y = value => top + height * (1 - (value - low) / (high - low));
    return {y, ticks: ticks(low, high, Math.max(3, height / 60))};
  }

  const WIDE = WIDTH - LEFT - RIGHT;
  const low = () => chosen.logX ? Math.max(view[0], Math.min(smallest, view[1] / 2)) : view[0];
  const x = at => LEFT + WIDE * (chosen.logX ? Math.log(at / low()) / Math.log(view[1] / low())
    : (at - view[0]) / (view[1] - view[0]));
  const place = px => chosen.logX ? low() * (view[1] / low()) ** ((px - LEFT) / WIDE)
    : view[0] + (px - LEFT) / WIDE * (view[1] - view[0]);
  const placeTicks = () => chosen.logX ? logTicks(low(), view[1], 12) : ticks(view[0], view[1], 10);

  function drawCurve(inside, curve, y) {
    const look = {class: 'curve', stroke: curve.color, 'stroke-width': curve.width,
      'stroke-dasharray': curve.dash || 'none'};
    const mean = smooth(curve);
    if (mean) {
      make(inside, 'path', {...look, d: pathOf(curve.at, curve.y, x, y, isNear, curve), opacity: .35,
        'stroke-width': .7, 'stroke-dasharray': 'none'});
      make(inside, 'path', {...look, d: pathOf(mean.at, mean.y, x, y, isNear, mean)});
    } else {
      make(inside, 'path', {...look, d: pathOf(curve.at, curve.y, x, y, isNear, curve)});
    }
    for (let n = 0; curve.marker && n < curve.at.length; n++) {
      if (!isVisible(curve.at[n])) continue;
      make(inside, 'circle', {cx: x(curve.at[n]), cy: y(curve.y[n]), r: 3.5, fill: curve.color});
    }
    if (curve.best) drawBest(inside, curve, y);
  }

  // A star on the best point.
  function drawBest(inside, curve, y) {
    const [at] = placed([curve.best[0]], curve.run);
    if (at === undefined || !isVisible(at)) return;
    const points = [...Array(10).keys()].map(n => {
      const r = n % 2 ? 3.8 : 9.5, angle = Math.PI * (n / 5 - .5);
      return `${x(at) + r * Math.cos(angle)},${y(curve.best[1]) + r * Math.sin(angle)}`;
    });
    const star = make(inside, 'polygon', {class: 'best', points: points.join(' '), fill: curve.color});
    make(star, 'title', {}, `best: ${show(curve.best[1])}${curve.unit || ''} at ${data.unit} `
      + show(curve.best[0]));
  }

  function drawMark(inside, mark, top, height) {
    const [from] = placed([mark.x], mark.run);
    if (from === undefined || !Number.isFinite(x(from))) return;
    if (mark.to !== undefined) {
      const [to] = placed([mark.to], mark.run);
      make(inside, 'rect', {x: x(from), y: top, width: Math.max(0, x(to) - x(from)), height,
        fill: mark.color, opacity: .08});
    }
    const line = make(inside, 'line', {x1: x(from), x2: x(from), y1: top, y2: top + height,
      stroke: mark.color, 'stroke-dasharray': mark.dash || 'none', class: mark.kind});
    make(line, 'title', {}, mark.text);
  }

  function drawPanel(svg, name, top) {
    const height = HEIGHTS[name];
    const curves = data.curves.filter(curve => curve.panel === name);
    const clip = `clip-${name}`;
    const defs = make(svg, 'clipPath', {id: clip});
    // Room for the markers of the first and the last point.
    make(defs, 'rect', {x: LEFT - 6, y: top - 4, width: WIDTH - LEFT - RIGHT + 12, height: height + 8});
    const sides = {
      left: scale(curves.filter(curve => curve.side === 'left'), top, height, name === 'lr' && data.logRates),
      right: scale(curves.filter(curve => curve.side === 'right'), top, height, chosen.logLoss,
        name === 'main' && data.lossTop),
    };
    for (const at of placeTicks()) {
      make(svg, 'line', {class: 'grid', x1: x(at), x2: x(at), y1: top, y2: top + height});
    }
    for (const [side, found] of Object.entries(sides)) {
      if (!found) continue;
      const color = name === 'main' && data.axisColors[side], look = color ? {fill: color} : {};
      for (const at of found.ticks) {
        const y = found.y(at), left = side === 'left';
        if (y < top - 1 || y > top + height + 1) continue;
        if (left) make(svg, 'line', {class: 'grid', x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y});
        make(svg, 'text', {x: left ? LEFT - 6 : WIDTH - RIGHT + 6, y: y + 4,
          'text-anchor': left ? 'end' : 'start', ...look}, Math.abs(at) < 1e5 ? show(at) : short.format(at));
      }
      const label = data.labels[name][side], middle = top + height / 2;
      const at = side === 'left' ? 13 : WIDTH - 6;
      make(svg, 'text', {x: at, y: middle, 'text-anchor': 'middle',
        transform: `rotate(-90 ${at} ${middle})`, ...look}, label);
    }
    const inside = make(svg, 'g', {'clip-path': `url(#${clip})`});
    for (const mark of data.marks) drawMark(inside, mark, top, height);
    for (const curve of curves) {
      const found = sides[curve.side];
      if (!hidden.has(curve.key) && found) drawCurve(inside, curve, found.y);
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
    for (const at of placeTicks()) {
      make(svg, 'text', {x: x(at), y: top - GAP + 18, 'text-anchor': 'middle'}, show(at));
    }
    make(svg, 'text', {x: WIDTH / 2, y: top + 8, 'text-anchor': 'middle'},
      inHours() ? 'hours of training' : data.unit);
    svg.append(cross, zoom);
  }

  const cross = document.createElementNS(SVG, 'line');
  cross.setAttribute('class', 'cross');
  const zoom = document.createElementNS(SVG, 'rect');
  zoom.setAttribute('class', 'zoom');

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
    head.textContent = `${inHours() ? 'hour' : data.unit} ${show(at)}`;
    tip.append(head);
    for (const curve of [...data.curves].sort((a, b) => !!a.behind - !!b.behind)) {
      if (hidden.has(curve.key) || !curve.at.length) continue;
      const mean = smooth(curve), points = mean || curve;
      const found = nearest(points.at, at), off = Math.abs(x(points.at[found]) - px);
      const [first, last] = [points.at[0], points.at[points.at.length - 1]];
      if (off > 40 && (at < first || at > last)) continue;
      const row = document.createElement('div'), name = document.createElement('span');
      const dot = document.createElement('i'), value = document.createElement('span');
      dot.style.background = paint(curve.color);
      name.append(dot, curve.name + (mean ? ` (mean of ${mean.span} displays)` : ''));
      value.textContent = show(points.y[found]) + (curve.unit || '')
        + (off > 15 && !curve.flat ? ` (at ${show(points.at[found])})` : '');
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

  function choose(change) {
    Object.assign(chosen, change);
    remember(chosen);
    placeCurves();
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
      choose({view: [Math.max(whole()[0], place(from)), Math.min(whole()[1], place(to))]});
    }
  });
  chart.addEventListener('dblclick', () => choose({view: null}));
  document.getElementById('whole').addEventListener('click', () => choose({view: null}));
  for (const [id, key] of [['log', 'logLoss'], ['logx', 'logX']]) {
    const box = document.getElementById(id);
    box.checked = chosen[key];
    box.addEventListener('change', () => choose({[key]: box.checked}));
  }
  const axis = document.getElementById('axis');
  axis.options[0].textContent = `${data.unit}s`;
  axis.value = inHours() ? 'hours' : 'place';
  axis.parentElement.hidden = !data.clocks.some(clock => clock);
  axis.addEventListener('change', () => choose({axis: axis.value, view: null}));
  const slider = document.getElementById('smooth'), mean = document.getElementById('mean');
  const told = () => { mean.textContent = chosen.span > 1 ? `mean of ${chosen.span} displays` : 'none'; };
  slider.max = spans.length - 1;
  slider.value = Math.max(0, spans.indexOf(chosen.span));
  slider.parentElement.hidden = spans.length < 2;
  slider.addEventListener('input', () => { choose({span: spans[slider.value]}); told(); });
  told();

  for (const entry of data.legend) {
    const label = document.createElement('label'), box = document.createElement('input');
    const line = document.createElement('i');
    box.type = 'checkbox';
    box.checked = true;
    line.style.borderTopColor = paint(entry.color);
    line.style.borderTopStyle = entry.dash ? 'dashed' : 'solid';
    box.addEventListener('change', () => {
      for (const key of entry.keys) box.checked ? hidden.delete(key) : hidden.add(key);
      draw();
    });
    const figures = document.createElement('small');
    figures.textContent = entry.figures ? `(${entry.figures})` : '';
    label.append(box, line, entry.name, ...(entry.figures ? [figures] : []));
    legend.append(label);
  }
  placeCurves();
  draw();
  leave();
})();
