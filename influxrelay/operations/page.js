"use strict";

// Renews the page every five seconds, and keeps the place to which it is scrolled.
async function renew() {
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.title = page.title;
    document.body.classList.remove("silent");
  } catch {
    document.body.classList.add("silent");
  }
}

setInterval(renew, 5000);
