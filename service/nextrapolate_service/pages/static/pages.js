// Keeps what a page shows up to date. Every page is whole without it.

const KINDS = ["queued", "claimed", "progress", "requeued", "cancelling", "succeeded", "failed", "cancelled"];
const FINAL = ["succeeded", "failed", "cancelled"];
const RETRY_MS = 2000;
const LIST_MS = 3000;

const main = () => document.querySelector("main");

/** Set the page's newest content in place of the old, and the focus where it was. */
async function renew() {
  let response;
  try {
    response = await fetch(location.href, { headers: { Accept: "text/html" } });
  } catch {
    return; // the server is away: the next news bring the next attempt
  }
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const focused = document.activeElement?.id;
  main().replaceWith(page.querySelector("main"));
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** Tell whether an event's id, milliseconds and a count, is later than another. */
function isLater(id, than) {
  const [a, b] = [id, than || "0-0"].map((text) => text.split("-").map(Number));
  return a[0] > b[0] || (a[0] === b[0] && a[1] > b[1]);
}

/** Follow a job's events until it has ended, through restarts of the server. */
function follow(address) {
  const source = new EventSource(address);
  const hear = (event) => {
    if (isLater(event.lastEventId, main().dataset.seen)) {
      main().dataset.seen = event.lastEventId;
      if (event.type === "progress") show(JSON.parse(event.data));
      else renew();
    }
    if (FINAL.includes(event.type)) source.close();
  };
  for (const kind of KINDS) source.addEventListener(kind, hear);
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(() => follow(address), RETRY_MS);
  });
}

/** Show how far a job is: the bar moves, and what is read aloud changes with the stage. */
function show(event) {
  const bar = document.querySelector("#progress");
  if (!bar) return void renew();
  bar.value = event.progress;
  document.querySelector("#percent").textContent = `${Math.round(event.progress * 100)} %`;
  if (event.stage && bar.dataset.stage !== event.stage) renew();
}

/** Renew a list now and then, but not under the hands of somebody who selects in it. */
function keepListFresh() {
  const busy = document.hidden || main().querySelector(":checked:not(option)") || main().contains(document.activeElement);
  if (!busy && main().dataset.living) renew();
  setTimeout(keepListFresh, LIST_MS);
}

if (main().dataset.events) follow(main().dataset.events);
if (main().dataset.living !== undefined) keepListFresh();
