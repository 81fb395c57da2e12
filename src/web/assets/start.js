// The start page follows what the server is doing, and makes way for the page that was asked for.

const EVERY_MS = 1500;

async function look(main) {
  let response, text;
  try {
    response = await fetch(main.dataset.next, { headers: { "X-Part": "start", "X-Live": "1" }, cache: "no-store" });
    text = await response.text();
  } catch {
    return; // The server is away for a moment.
  }
  const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("#start");
  if (response.status !== 503 || !fresh) {
    location.replace(main.dataset.next);
    return;
  }
  if (fresh.dataset.stage !== main.dataset.stage) {
    main.replaceChildren(...fresh.childNodes);
    main.dataset.stage = fresh.dataset.stage;
    revealOnRequest();
    return;
  }
  // Half-typed words stay; only what counts is exchanged, so that nothing is read out again and again.
  for (const id of ["percent", "changes"]) {
    const [old, now] = [main.querySelector(`#${id}`), fresh.querySelector(`#${id}`)];
    if (old && now) old.textContent = now.textContent;
  }
  const [gauge, now] = [main.querySelector(".gauge"), fresh.querySelector(".gauge")];
  if (gauge && now?.hasAttribute("value")) gauge.value = now.value;
}

/** A long recovery key is easier to type where it can be seen. */
function revealOnRequest() {
  for (const box of document.querySelectorAll("[data-reveal]")) {
    box.addEventListener("change", () => {
      document.getElementById(box.dataset.reveal).type = box.checked ? "text" : "password";
    });
  }
}

export function followStart() {
  const main = document.querySelector("#start");
  revealOnRequest();
  const next = async () => {
    await look(main);
    setTimeout(next, EVERY_MS);
  };
  setTimeout(next, EVERY_MS);
}
