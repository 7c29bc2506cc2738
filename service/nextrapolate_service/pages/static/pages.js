// Keeps what a page shows up to date: the page is asked for again now and then. It is whole without this.

const PATIENCE_MS = 10_000; // a network may forget a connection, and tell neither end

const main = () => document.querySelector("main");

/** Give the page's content as it is now, or nothing where the server does not. */
async function newest() {
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const response = await fetch(location.href, { headers: { Accept: "text/html" }, signal });
    if (response.redirected) return void location.assign(response.url); // the session has ended: sign in
    const isGone = response.status === 404; // which the page that came instead says
    if (!response.ok && !isGone) return;
    return new DOMParser().parseFromString(await response.text(), "text/html").querySelector("main");
  } catch {
    // the server is away
  }
}

/** Show newer content; the focus stays where it was. */
function put(now) {
  const focused = document.activeElement?.id;
  become(main(), now);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** Make a node what another is, and leave what they share as it stands: typed, scrolled, read aloud once. */
function become(old, now) {
  if (old.isEqualNode(now)) return;
  const isAnother = old.nodeName !== now.nodeName || old.id !== now.id || old.href !== now.href;
  // A link that leads elsewhere is another one: who has the focus on it would follow it.
  if (isAnother || now.nodeName === "#text") return old.replaceWith(now);
  for (const name of old.getAttributeNames()) if (!now.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of now.attributes) old.setAttribute(name, value);
  const [had, has] = [[...old.childNodes], [...now.childNodes]];
  for (const [place, child] of has.entries()) had[place] ? become(had[place], child) : old.append(child);
  for (const child of had.slice(has.length)) child.remove();
}

/** Tell whether a change would come under somebody's hands, or be seen by nobody. */
function isBusy() {
  const selection = getSelection();
  const isMarking = !selection.isCollapsed && main().contains(selection.anchorNode);
  return document.hidden || isMarking || main().querySelector(":checked:not(option)");
}

// One request after another, so that no answer overtakes another, and as long as the page says that it may change.
while (main().dataset.renewSeconds) {
  await new Promise((over) => setTimeout(over, 1000 * main().dataset.renewSeconds));
  if (isBusy()) continue;
  const now = await newest();
  document.querySelector("#lost").hidden = Boolean(now);
  if (now && !isBusy()) put(now); // somebody may have begun while the server answered
}
