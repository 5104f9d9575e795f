const table = document.getElementById('runs'), body = table.tBodies[0];
const filter = document.getElementById('filter'), count = document.getElementById('count');
const buttons = [...table.tHead.querySelectorAll('button')];
// A page that is brought up to date keeps its filter and its order, where there is storage.
const place = 'runs of ' + location.pathname;
let kept = {};
try { kept = JSON.parse(sessionStorage.getItem(place)) || {}; } catch { }
function keep(changes) {
  Object.assign(kept, changes);
  try { sessionStorage.setItem(place, JSON.stringify(kept)); } catch { }
}
function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let seen = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
    seen += !row.hidden;
  }
  count.textContent = seen + ' of ' + body.rows.length + ' runs';
  keep({filter: filter.value});
}
function sort(column, descending) {
  buttons.forEach(b => b.parentNode.removeAttribute('aria-sort'));
  buttons[column].parentNode.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
  const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === '' || y === '') return (x === '') - (y === '');
    const [p, q] = [Number(x), Number(y)];
    const found = isNaN(p) || isNaN(q) ? x.localeCompare(y) : p - q;
    return descending ? -found : found;
  };
  body.append(...[...body.rows].sort(order));
  keep({column, descending});
}
filter.addEventListener('input', show);
buttons.forEach((button, column) => button.addEventListener('click', () =>
  sort(column, button.parentNode.getAttribute('aria-sort') === 'ascending')));
filter.value = kept.filter || '';
if (kept.column in buttons) sort(kept.column, kept.descending);
show();
