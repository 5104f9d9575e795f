{
  const MOST_BANDS = 4;  // of more, only that of the line pointed at can be told
  const INTEGERS = [...Array(15).keys()].flatMap(n => [1, 2, 5].map(m => m * 10 ** n));
  const shown = x => x.toLocaleString('en-US', {maximumSignificantDigits: 12});
  const made = (kind, parent, text = '') => {
    const element = document.createElement(kind);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  // A page that is brought up to date keeps what was chosen, where there is storage.
  const place = 'charts of ' + location.pathname;
  let kept = {};
  try { kept = JSON.parse(sessionStorage.getItem(place)) || {}; } catch { }

  function show(figure, number) {
    const {x, xLabel, yLabel, lines} = JSON.parse(figure.querySelector('script').textContent);
    if (!x.length) return;
    const live = figure.querySelector('.live');
    const largest = lines.flatMap(line => [line.value, line.low, line.high]).flat()
      .reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const decimals = largest > 0 ? Math.min(Math.max(3 - Math.floor(Math.log10(largest)), 0), 12) : 0;
    const rounded = y => y == null ? '\u2013' : y.toLocaleString('en-US',
      {minimumFractionDigits: decimals, maximumFractionDigits: decimals});
    for (const line of lines) {
      line.first = line.drawn;
      line.drawn = kept[number]?.[line.name] ?? line.drawn;
    }
    const isDrawn = line => line.drawn;
    let near = null, chart = null;
    const hasBand = line => line.drawn
      && (line === near || lines.filter(isDrawn).length <= MOST_BANDS);

    live.hidden = false;
    figure.classList.add('is-live');
    const plot = made('div', live), bar = made('p', live), choice = made('div', live);
    plot.className = 'plot';
    bar.className = 'at';
    choice.className = 'choice';
    made('p', live, 'Point at the curves for values. Drag across them to see a part, double-click '
      + 'to see all.').className = 'way';
    const told = made('span', bar), body = made('tbody', made('table', choice));

    function range(u, low, high) {
      const [first, last] = u.series[0].idxs ?? [0, x.length - 1];
      const values = lines.filter(isDrawn)
        .flatMap(line => [line.value, line.low, line.high].map(c => c.slice(first, last + 1)))
        .flat().filter(value => value != null);
      if (!values.length) return low == null ? [0, 1] : [low, high];
      const [least, most] = [Math.min, Math.max].map(end => values.reduce((a, b) => end(a, b)));
      const room = most > least ? 0 : Math.abs(most) / 20 || 1;
      return uPlot.rangeNum(least - room, most + room, 0.06, true);
    }
    function bands(u) {
      u.ctx.save();
      u.ctx.beginPath();
      u.ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
      u.ctx.clip();
      for (const line of lines.filter(hasBand)) {
        const known = [...x.keys()].filter(i => line.low[i] != null);
        const point = column => i => [u.valToPos(x[i], 'x', true), u.valToPos(column[i], 'y', true)];
        u.ctx.beginPath();
        known.map(point(line.low)).forEach(p => u.ctx.lineTo(...p));
        known.reverse().map(point(line.high)).forEach(p => u.ctx.lineTo(...p));
        u.ctx.fillStyle = line.fill;
        u.ctx.fill();
      }
      u.ctx.restore();
    }
    function tell() {
      const i = chart.cursor.idx ?? x.length - 1;
      told.textContent = `at ${shown(x[i])} ${xLabel.toLowerCase()}:`;
      for (const line of lines) {
        line.cells[0].textContent = rounded(line.value[i]);
        line.cells[1].textContent =
          line.low[i] == null ? '' : `(${rounded(line.low[i])} to ${rounded(line.high[i])})`;
      }
    }
    function point(line) {
      if (line === near) return;
      near = line;
      lines.forEach(other => other.row.classList.toggle('near', other === near));
      chart.redraw(false);
    }
    function choose(wanted) {
      chart.batch(() => lines.forEach((line, i) => {
        line.drawn = wanted(line);
        line.box.checked = line.drawn;
        line.row.classList.toggle('off', !line.drawn);
        if (chart.series[i + 1].show !== line.drawn) chart.setSeries(i + 1, {show: line.drawn});
      }));
      chart.redraw(false, true);
      kept[number] = Object.fromEntries(lines.map(line => [line.name, line.drawn]));
      try { sessionStorage.setItem(place, JSON.stringify(kept)); } catch { }
    }

    const size = () => ({
      width: plot.clientWidth,
      height: Math.round(Math.min(Math.max(0.55 * plot.clientWidth, 220), 380)),
    });
    const axis = {
      font: '12px system-ui, sans-serif', labelFont: '12px system-ui, sans-serif', stroke: '#222',
      grid: {stroke: '#e5e5e5', width: 1}, ticks: {stroke: '#999', width: 1, size: 4},
      values: (u, ticks) => ticks.map(shown), labelSize: 20,
    };
    const room = (u, ticks) => Math.max(42, 14 + 7 * Math.max(...(ticks ?? []).map(t => t.length)));
    chart = new uPlot({
      ...size(),
      padding: [12, 32, 0, 0],
      legend: {show: false},
      cursor: {focus: {prox: 20}, y: false},
      focus: {alpha: 0.35},
      scales: {x: {time: false}, y: {range}},
      axes: [
        {...axis, label: xLabel, incrs: INTEGERS, size: 34, space: 70},
        {...axis, label: yLabel, size: room, space: 36},
      ],
      series: [{}, ...lines.map(line => ({
        label: line.name, stroke: line.color, width: 2, dash: line.dash, spanGaps: true,
        show: line.drawn, points: {show: x.length < 40, size: 5, fill: line.color},
      }))],
      hooks: {
        drawAxes: [bands],
        setCursor: [() => chart && tell()],
        setSeries: [(u, i, options) => {
          if (chart && 'focus' in options) point(i == null ? null : lines[i - 1]);
        }],
      },
    }, [x, ...lines.map(line => line.value)], plot);

    lines.forEach((line, i) => {
      line.row = made('tr', body);
      const cell = made('td', line.row);
      cell.className = 'text';
      const label = made('label', cell);
      line.box = made('input', label);
      line.box.type = 'checkbox';
      const sample = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
      const stroke = document.createElementNS(sample.namespaceURI, 'line');
      const drawing = {x1: 0, y1: 6, x2: 32, y2: 6, stroke: line.color, 'stroke-width': 2.5};
      for (const [name, value] of Object.entries({...drawing, 'stroke-dasharray': line.dash}))
        stroke.setAttribute(name, value);
      sample.append(stroke);
      label.append(sample);
      made('span', label, line.name);
      line.cells = [made('td', line.row), made('td', line.row)];
      line.box.addEventListener('change', () =>
        choose(other => other === line ? line.box.checked : other.drawn));
      line.row.addEventListener('mouseenter', () =>
        line.drawn && chart.setSeries(i + 1, {focus: true}));
      line.row.addEventListener('mouseleave', () => chart.setSeries(null, {focus: true}));
    });
    if (lines.length > 1) {
      const sets = {all: () => true, none: () => false};
      if (!lines.every(line => line.first)) sets['as at first'] = line => line.first;
      for (const [name, wanted] of Object.entries(sets)) {
        const button = made('button', bar, name);
        button.type = 'button';
        button.addEventListener('click', () => choose(wanted));
      }
    }
    plot.tabIndex = 0;
    plot.addEventListener('keydown', event => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (!step) return;
      event.preventDefault();
      const i = Math.min(Math.max((chart.cursor.idx ?? x.length) + step, 0), x.length - 1);
      chart.setCursor({left: chart.valToPos(x[i], 'x'), top: 0});
    });
    new ResizeObserver(() => plot.clientWidth && chart.setSize(size())).observe(plot);
    choose(isDrawn);
    tell();
  }
  document.querySelectorAll('figure.chart').forEach(show);
}
