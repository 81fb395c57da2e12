// The Health page keeps itself up to date: when a line goes down or comes back, and every ten seconds.

const PAUSE_MS = 10_000;
const $ = (selector, from = document) => from.querySelector(selector);

let timer;

/** Puts what is new in place of what is shown, unless somebody is at a form in it. */
function put(selector, found) {
  const [now, next] = [$(selector), $(selector, found)];
  if (!next || now.contains(document.activeElement?.closest("form, details"))) return;
  if (now.innerHTML === next.innerHTML) return;
  const top = now.scrollTop;
  now.innerHTML = next.innerHTML;
  now.scrollTop = top;
}

async function refresh() {
  clearTimeout(timer);
  try {
    // A live update is no sign of somebody at work, so the session ends as it would without it.
    const response = await fetch("/health", { headers: { "X-Part": "health", "X-Live": "1" } });
    if (response.status === 401) return location.reload();
    if (response.ok) {
      const found = new DOMParser().parseFromString(await response.text(), "text/html");
      put("#rail", found);
      put("#health", found);
    }
    $("#offline").hidden = true;
  } catch {
    $("#offline").hidden = false;
  }
  timer = setTimeout(refresh, PAUSE_MS);
}

export function startHealth() {
  timer = setTimeout(refresh, PAUSE_MS);
  const source = new EventSource("/events");
  source.addEventListener("health", refresh);
  source.addEventListener("expired", () => location.reload());
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
}
