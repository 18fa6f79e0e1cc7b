/** What makes the page's sections tabs, and its buttons copy. Without it all sections are there, one below the other. */
export const SCRIPT = `'use strict';
(() => {
  const said = document.querySelector('.said');
  for (const button of document.querySelectorAll('.copy button')) {
    button.hidden = false;
    button.addEventListener('click', async () => {
      const code = button.parentElement.querySelector('code');
      const copied = await copy(code);
      button.textContent = copied ? 'Copied' : 'Press Ctrl+C';
      button.classList.toggle('done', copied);
      said.textContent = '';
      said.textContent = copied ? 'Copied.' : 'The text is selected: press Ctrl and C.';
      clearTimeout(button.timer);
      button.timer = setTimeout(() => {
        button.textContent = 'Copy';
        button.classList.remove('done');
      }, 2000);
    });
  }
  async function copy(code) {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return true;
    } catch {
      const selection = getSelection();
      selection.selectAllChildren(code);
      const copied = document.execCommand('copy');
      if (copied) selection.removeAllRanges();
      return copied;
    }
  }

  const nav = document.querySelector('nav');
  const tabs = [...nav.querySelectorAll('[data-tab]')];
  const panels = [...document.querySelectorAll('[data-panel]')];
  document.documentElement.classList.add('tabbed');
  nav.setAttribute('role', 'tablist');
  nav.setAttribute('aria-orientation', 'vertical');
  for (const item of nav.querySelectorAll('div, ul, li')) item.setAttribute('role', 'presentation');
  for (const tab of tabs) {
    tab.setAttribute('role', 'tab');
    tab.setAttribute('aria-controls', tab.dataset.tab);
    tab.addEventListener('click', event => {
      event.preventDefault();
      show(tab.dataset.tab);
      history.replaceState(null, '', '#' + tab.dataset.tab);
      // Where the list lies above the instructions, they would be out of sight.
      if (matchMedia('(max-width: 46rem)').matches)
        document.getElementById(tab.dataset.tab).scrollIntoView({ block: 'start' });
    });
    tab.addEventListener('keydown', event => {
      const at = tabs.indexOf(tab);
      const next = {
        ArrowDown: tabs[at + 1] ?? tabs[0],
        ArrowRight: tabs[at + 1] ?? tabs[0],
        ArrowUp: tabs.at(at - 1),
        ArrowLeft: tabs.at(at - 1),
        Home: tabs[0],
        End: tabs.at(-1),
        ' ': tab,
      }[event.key];
      if (!next) return;
      event.preventDefault();
      next.focus();
      show(next.dataset.tab);
    });
  }
  for (const panel of panels) {
    panel.setAttribute('role', 'tabpanel');
    panel.setAttribute('aria-labelledby', 'tab-' + panel.dataset.panel);
  }
  function show(name) {
    if (!tabs.some(tab => tab.dataset.tab === name)) name = usual();
    for (const tab of tabs) {
      const chosen = tab.dataset.tab === name;
      tab.setAttribute('aria-selected', String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    for (const panel of panels) panel.hidden = panel.dataset.panel !== name;
  }
  function usual() {
    const platform = navigator.platform;
    return /^Win/.test(platform) ? 'docker-desktop-windows' : /^Mac/.test(platform) ? 'docker-desktop-macos' : 'docker';
  }
  addEventListener('hashchange', () => show(location.hash.slice(1)));
  show(location.hash.slice(1));
})();
`;
