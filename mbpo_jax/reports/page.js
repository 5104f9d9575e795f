// What is wider than its place says so, and can be reached by the keyboard.
for (const place of document.querySelectorAll('div.wide')) {
  const hint = document.createElement('p');
  hint.className = 'hint';
  hint.hidden = true;
  hint.textContent = 'there is more to the right: scroll or swipe \u2192';
  place.before(hint);
  const look = () => {
    const more = place.scrollWidth > place.clientWidth + 1;
    hint.hidden = !more;
    if (more || place.scrollHeight > place.clientHeight + 1) place.tabIndex = 0;
    else place.removeAttribute('tabindex');
  };
  const watch = new ResizeObserver(look);
  watch.observe(place);
  if (place.firstElementChild) watch.observe(place.firstElementChild);
}
