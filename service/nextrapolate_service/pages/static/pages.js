// Keeps what a page shows up to date. Every page is whole without it.

const RETRY_MS = 2000;

const main = () => document.querySelector("main");
const regions = () => main().querySelectorAll(".scroll[id]");

/** Give the page as it is now, or nothing where the server does not: the next news bring the next attempt. */
async function newest() {
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (response.redirected) return void location.assign(response.url); // the session has ended: sign in
    if (response.ok) return new DOMParser().parseFromString(await response.text(), "text/html");
  } catch {
    // the server is away
  }
}

/** Set a page's content in place of the old; focus and scrolled tables stay where they were. */
function put(page) {
  const focused = document.activeElement?.id;
  const scrolled = new Map([...regions()].map((region) => [region.id, region.scrollLeft]));
  main().replaceWith(page.querySelector("main"));
  for (const region of regions()) region.scrollLeft = scrolled.get(region.id) ?? 0;
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** Renew a job's page, once nobody marks text on it. */
async function renew() {
  const page = !isSelecting() && (await newest());
  if (isSelecting()) setTimeout(renew, RETRY_MS); // even if that began while the server answered
  else if (page) put(page);
}

/** Tell whether somebody has marked text, to copy it. */
function isSelecting() {
  const selection = getSelection();
  return !selection.isCollapsed && main().contains(selection.anchorNode);
}

/** Tell whether an event's id, milliseconds and a count, is later than another. */
function isLater(id, than) {
  const [a, b] = [id, than || "0-0"].map((text) => text.split("-").map(Number));
  return a[0] > b[0] || (a[0] === b[0] && a[1] > b[1]);
}

/**
 * Follow a job's events until it has ended, through restarts of the server.
 *
 * Its page names their address, their types, since a browser hears of no others, and the states that are final.
 */
function follow(job) {
  const source = new EventSource(job.events);
  const hear = (event) => {
    const told = JSON.parse(event.data);
    if (isLater(event.lastEventId, main().dataset.seen)) {
      main().dataset.seen = event.lastEventId;
      if (event.type === "progress") show(told);
      else renew();
    }
    if (job.finalStates.split(" ").includes(told.state)) source.close();
  };
  for (const type of job.eventTypes.split(" ")) source.addEventListener(type, hear);
  source.addEventListener("open", () => sayLost(false));
  source.addEventListener("error", () => {
    sayLost(true);
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    renew();
    setTimeout(() => follow(job), RETRY_MS);
  });
}

/** Say that what is shown may be old, or that it is not. */
function sayLost(lost) {
  const line = document.querySelector("#lost");
  if (line) line.hidden = !lost;
}

/** Show how far a job is: the bar moves, and what is read aloud changes with the stage. */
function show(event) {
  const bar = document.querySelector("#progress");
  if (!bar) return void renew();
  bar.value = event.progress;
  document.querySelector("#percent").textContent = `${Math.round(event.progress * 100)} %`;
  if (event.stage && bar.dataset.stage !== event.stage) renew();
}

/** Tell whether a list would change under somebody's hands. */
function isBusy() {
  const inUse = document.activeElement?.closest("main :is(a, button, input, select)");
  return document.hidden || inUse || isSelecting() || main().querySelector(":checked:not(option)");
}

/** Renew a list now and then: often while something runs, seldom for what may yet begin. */
function keepListFresh() {
  setTimeout(async () => {
    const page = !isBusy() && (await newest());
    if (page && !isBusy()) put(page); // somebody may have begun while the server answered
    keepListFresh();
  }, 1000 * main().dataset.renewSeconds);
}

if (main().dataset.events) follow(main().dataset); // it stays with this function when the page is renewed
if (main().dataset.renewSeconds) keepListFresh();
