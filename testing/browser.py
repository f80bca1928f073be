"""A real browser, Debian's Chromium, driven by Puppeteer."""

from __future__ import annotations

import json
from typing import Any

from testing import node
from testing.servers import find_program

_PUPPETEER = "puppeteer-core@24.8.2"
_SCRIPT = """
const puppeteer = require('puppeteer-core');
const given = %s;
(async () => {
  const browser = await puppeteer.launch({
    executablePath: given.program, args: ['--no-sandbox', '--disable-gpu'], timeout: 120000,
  });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(120000);  // only what hangs takes as long
    const problems = [];
    page.on('console', (message) => { if (message.type() === 'error') problems.push(message.text()); });
    page.on('pageerror', (error) => problems.push(String(error)));
    const asked = [];
    page.on('request', (request) => asked.push(request.url()));
    await page.setViewport({ width: given.width, height: 900 });
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: given.scheme }]);
    await page.goto(given.url);
    if (given.opened) require('fs').writeFileSync(given.opened, '');
    if (given.condition) await page.waitForFunction(given.condition, { polling: 200 });
    const found = await page.evaluate(() => ({
      title: document.title,
      text: document.body.innerText,
      overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      background: getComputedStyle(document.body).backgroundColor,
      color: getComputedStyle(document.body).color,
    }));
    if (given.screenshot) await page.screenshot({ path: given.screenshot, fullPage: true });
    console.log(JSON.stringify({ ...found, asked, problems }));
  } finally {
    await browser.close();
  }
})();
"""


def look(
    url: str, *, width: int = 1000, dark: bool = False, opened: str = "", condition: str = "", screenshot: str = ""
) -> dict[str, Any]:
    """Open a page, and return what it looks like; blocks.

    :param width: of the window, in pixels.
    :param opened: a file that is made as soon as the page is there.
    :param condition: JavaScript that is to become true first.
    :param screenshot: the file to which a picture is written.
    :return: ``title``, ``text`` as it is seen, ``overflow`` (pixels by which the page is too wide), ``background`` and
        ``color``, ``asked`` (the URLs of all requests), ``problems`` (of the page's scripts and its policy).
    """
    given = {
        "program": find_program("chromium", "chromium"),
        "url": url,
        "width": width,
        "scheme": "dark" if dark else "light",
        "opened": opened,
        "condition": condition,
        "screenshot": screenshot,
    }
    found: dict[str, Any] = json.loads(node.run(_SCRIPT % json.dumps(given), _PUPPETEER))
    return found
