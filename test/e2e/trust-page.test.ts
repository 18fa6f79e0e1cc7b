import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { startChromium } from '../support/chromium.js';
import { Namespace } from '../support/namespace.js';
import { Registry } from '../support/registry.js';

// The page /trust in a real Chromium that trusts the registry's authority, as a reader on a verified connection has it.
describe('/trust in Chromium', { timeout: 240_000 }, () => {
  let machine: Namespace;
  let registry: Registry;
  let browser: Browser;
  let url: string;
  let pem: string;
  let sha256: string;
  /** Where pictures of the page go, for people to look at: nowhere unless told. */
  const pictures = process.env.TRUST_PAGE_PICTURES;

  before(async () => {
    machine = await Namespace.create();
    registry = await Registry.start(machine, ['up', '--addr', `${machine.ip}:5000`, '--ip', machine.ip]);
    url = `https://${registry.host}/trust`;
    const ca = join(registry.dir, 'certs/ca.crt');
    pem = readFileSync(ca, 'utf8');
    sha256 = createHash('sha256').update(pem).digest('hex');
    browser = await startChromium(machine, { ca });
    if (pictures) mkdirSync(pictures, { recursive: true });
  });
  after(async () => {
    await browser?.close();
    await machine?.close();
  });

  /** Opens the page, runs the test on it, and fails for whatever Chromium complained about meanwhile. */
  async function onPage(options: BrowserContextOptions, run: (page: Page) => Promise<void>, at = url): Promise<void> {
    const context = await browser.newContext(options);
    context.setDefaultTimeout(120_000);
    try {
      await context.grantPermissions(['clipboard-read', 'clipboard-write']).catch(() => undefined);
      const page = await context.newPage();
      const complaints: string[] = [];
      page.on('console', message => complaints.push(message.text()));
      page.on('pageerror', error => complaints.push(error.message));
      page.on('requestfailed', request => complaints.push(request.url()));
      const requests: string[] = [];
      page.on('request', request => requests.push(request.url()));
      await page.goto(at);
      await run(page);
      assert.deepEqual(complaints, []);
      assert.deepEqual(
        requests.filter(asked => !asked.startsWith(`https://${registry.host}/`) && !asked.startsWith('data:')),
        [],
      );
    } finally {
      await context.close();
    }
  }
  const picture = (page: Page, name: string, fullPage = false) =>
    pictures ? page.screenshot({ path: join(pictures, `${name}.png`), fullPage }) : undefined;
  const shown = (page: Page) =>
    page.$$eval('[data-panel]', panels =>
      panels
        .filter(panel => (panel as { checkVisibility(): boolean } & typeof panel).checkVisibility())
        .map(panel => panel.id),
    );
  /** What the button has put into the clipboard, which it does a moment after the click. */
  async function copiedBy(page: Page, button: string): Promise<string> {
    await page.evaluate("navigator.clipboard.writeText('')");
    await page.getByRole('button', { name: button, exact: true }).click();
    const end = performance.now() + 60_000;
    for (let text = ''; ; await page.waitForTimeout(50)) {
      text = (await page.evaluate('navigator.clipboard.readText()')) as string;
      if (text !== '') return text;
      assert.ok(performance.now() < end, `${button} copies nothing`);
    }
  }

  test('without the authority Chromium refuses the page', async () => {
    const other = await startChromium(machine);
    try {
      const page = await other.newPage();
      await assert.rejects(page.goto(url), /ERR_CERT_AUTHORITY_INVALID/);
    } finally {
      await other.close();
    }
  });

  test('shows the host, the fingerprint, and one client at a time', async () => {
    await onPage({}, async page => {
      assert.equal(await page.title(), `Trust ${registry.host}`);
      assert.equal(await page.locator('.digest code').first().innerText(), sha256);
      assert.deepEqual(await shown(page), ['docker']);
      await page.getByRole('tab', { name: 'Podman, Buildah, Skopeo, CRI-O' }).click();
      assert.deepEqual(await shown(page), ['podman']);
      await page.waitForURL(/#podman$/);
      await picture(page, 'light');
    });
    await onPage({}, async page => assert.deepEqual(await shown(page), ['containerd']), `${url}#containerd`);
    await onPage({}, async page => assert.deepEqual(await shown(page), ['docker']), `${url}#"><script>`);
  });

  test('tabs work by keyboard alone, and say which one is chosen', async () => {
    await onPage({}, async page => {
      await page.getByRole('tab', { selected: true }).focus();
      await page.keyboard.press('ArrowDown');
      assert.deepEqual(await shown(page), ['docker-rootless']);
      await page.keyboard.press('End');
      assert.deepEqual(await shown(page), ['java']);
      await page.keyboard.press('ArrowDown');
      assert.deepEqual(await shown(page), ['docker']);
      await page.keyboard.press('ArrowUp');
      assert.deepEqual(await shown(page), ['java']);
      assert.equal(await page.getByRole('tab', { selected: true }).count(), 1);
      assert.equal(await page.locator('nav [tabindex="0"]').count(), 1);
      // From the chosen tab the next stop is inside of its section.
      await page.keyboard.press('Tab');
      assert.equal(await page.evaluate("document.activeElement.closest('[data-panel]')?.id"), 'java');
    });
  });

  test('copy buttons copy what stands beside them, word by word', async () => {
    await onPage({}, async page => {
      assert.equal(await copiedBy(page, 'Copy the SHA-256 of the file'), sha256);
      await page.locator('[role=status]', { hasText: /^Copied\.$/ }).waitFor({ state: 'attached' });
      assert.equal(
        await copiedBy(page, 'Copy the commands for Docker Engine on Linux'),
        `sudo install -Dm644 ca.crt /etc/docker/certs.d/${registry.host}/ca.crt`,
      );
      const line = await copiedBy(page, 'Copy the line for Docker Engine on Linux');
      assert.match(line, new RegExp(`^\\(cd .* && echo '${sha256} {2}ca\\.crt' \\| sha256sum -c - && sudo install `));
      // What a reader pastes is what installs it.
      await machine.must(['sh', '-euc', line]);
      assert.equal(readFileSync(join(machine.dir, 'etc/docker/certs.d', registry.host, 'ca.crt'), 'utf8'), pem);
    });
  });

  test('the download is the file', async () => {
    await onPage({ acceptDownloads: true }, async page => {
      const [download] = await Promise.all([page.waitForEvent('download'), page.getByText('Download ca.crt').click()]);
      assert.equal(download.suggestedFilename(), 'ca.crt');
      assert.equal(readFileSync(await download.path(), 'utf8'), pem);
    });
  });

  test('without a script every section is there, and no button that does nothing', async () => {
    await onPage({ javaScriptEnabled: false }, async page => {
      assert.equal(await page.locator('[data-panel]:visible').count(), await page.locator('[data-panel]').count());
      assert.equal(await page.locator('.copy button:visible').count(), 0);
      await page.locator('nav a[href="#k3s"]').click();
      await page.waitForURL(/#k3s$/);
      await picture(page, 'no-script');
    });
  });

  test('scripts that somebody puts into the page do not run', async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    const refused: string[] = [];
    page.on('console', message => refused.push(message.text()));
    await page.goto(url);
    await page.evaluate(`
      const script = document.createElement('script');
      script.textContent = 'window.ran = true';
      document.body.append(script);
      const image = document.createElement('img');
      image.src = 'https://192.168.0.99/x.png';
      document.body.append(image);`);
    await page.waitForFunction('performance.now() > 0');
    while (refused.length < 2) await page.waitForEvent('console', { timeout: 60_000 });
    assert.equal(await page.evaluate('window.ran'), undefined);
    assert.ok(
      refused.every(text => /Content Security Policy/.test(text)),
      refused.join('\n'),
    );
    await context.close();
  });

  test('dark and narrow screens: nothing sticks out, and the text stands out', async () => {
    const contrast = `(() => {
      const channel = value => { const c = value / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
      const luminance = colour => { const [r, g, b] = colour.match(/\\d+/g).map(Number).map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const behind = element => { for (let at = element; at; at = at.parentElement) { const colour = getComputedStyle(at).backgroundColor; if (!/, 0\\)$/.test(colour)) return colour; } };
      return [...document.querySelectorAll('h1, h2, h3, p, dt, code, a, button, li, summary')].filter(element => element.checkVisibility() && element.textContent.trim() && !element.matches('.skip, .said')).map(element => {
        const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))].sort((x, y) => y - x);
        return [(a + 0.05) / (b + 0.05), element.textContent.slice(0, 40)];
      }).filter(([ratio]) => ratio < 4.5);
    })()`;
    for (const colorScheme of ['light', 'dark'] as const)
      for (const viewport of [
        { width: 1200, height: 900 },
        { width: 360, height: 740 },
      ])
        await onPage({ colorScheme, viewport }, async page => {
          const width = await page.evaluate('document.documentElement.scrollWidth');
          assert.ok((width as number) <= viewport.width, `${width} of ${viewport.width}`);
          // WCAG 2.2, success criterion 1.4.3.
          assert.deepEqual(await page.evaluate(contrast), [], `${colorScheme} ${viewport.width}`);
          await picture(page, `${colorScheme}-${viewport.width}`, viewport.width < 500);
        });
  });
});
