// /optimizer.js in a page: it decides in one call, renders text and safe attributes only, reports what was seen and clicked.
import assert from "node:assert/strict";
import { JSDOM, VirtualConsole } from "jsdom";

const { URL: base, PAGE_KEY, ORIGIN } = process.env;
const source = await (await fetch(`${base}/optimizer.js`)).text();
const until = async (happened, what) => {
  for (let i = 0; i < 100; i += 1) {
    if (await happened()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`not in time: ${what}`);
};

function open(body, { key = PAGE_KEY, fetch: ask = fetch, keepSignal = false, ...data } = {}) {
  const dom = new JSDOM(`<body>${body}</body>`, {
    url: `${ORIGIN}/page`,
    runScripts: "outside-only",
    virtualConsole: new VirtualConsole(),
  });
  const { window } = dom;
  window.Request = Request; // jsdom has neither this nor fetch
  const requests = [];
  const outcomes = [];
  window.fetch = async (url, options) => {
    requests.push({ url: String(url), options, body: JSON.parse(options.body) });
    const answer = await ask(url, { ...options, signal: keepSignal ? options.signal : undefined, headers: { ...options.headers, Origin: ORIGIN } });
    if (String(url).endsWith("/v1/t")) outcomes.push(await answer.clone().json());
    return answer;
  };
  window.IntersectionObserver = class {
    constructor(call) { this.call = call; }
    observe(target) { setTimeout(() => target.hidden || this.call([{ isIntersecting: true, target }]), 0); }
    unobserve() {}
  };
  const script = { src: `${base}/optimizer.js`, dataset: { key, ...data } };
  Object.defineProperty(window.document, "currentScript", { get: () => script });
  window.eval(source);
  const reports = () => requests.filter((one) => one.url.endsWith("/v1/t"));
  return { window, document: window.document, requests, reports, outcomes };
}

const page = open(
  `<h1 data-placement="hero">As it is</h1><a id="link" data-placement="hero" data-attribute="href" href="#">x</a>
   <b data-placement="banner" data-field="title">Old</b><i data-placement="banner" data-attribute="onclick"></i>
   <a id="bad" data-placement="banner" data-field="link" data-attribute="href" href="/kept">x</a>
   <a id="script" data-placement="banner" data-field="script" data-attribute="href" href="/kept">x</a>
   <u data-placement="silent">Not for those who get nothing</u><p data-placement="banner" data-field="size">0</p>`,
  { customer: "page-1", exposure: "shown" },
);
const { document } = page;
const heading = document.querySelector("h1");
await until(() => heading.dataset.decided, "the page is decided");
assert.ok(["Hi", "A gift"].includes(heading.textContent));
assert.equal(document.querySelector("b").textContent, "<b>Sale</b>", "content is text, never markup");
assert.equal(document.querySelector("b").children.length, 0);
assert.equal(document.querySelector("i").getAttribute("onclick"), null);
assert.equal(document.querySelector("#bad").getAttribute("href"), "/kept", "an address that is none is left out");
assert.equal(document.querySelector("#script").getAttribute("href"), "/kept", "an address that runs is left out");
assert.equal(document.querySelector("p").textContent, "2", "one bad element harms no other");
assert.equal(document.querySelector("u").hidden, true, "where nothing is delivered, nothing is shown");
assert.equal(document.querySelectorAll("[data-placement]:not([data-decided])").length, 0, "all are shown");
assert.equal(page.requests.filter((one) => one.url.endsWith("/v1/decisions")).length, 1, "one call for all");
await until(() => page.outcomes.length >= 2, "what was seen is reported, once a decision");
heading.click();
heading.click();
await until(() => page.outcomes.length >= 3, "the click is reported and answered");
assert.ok(page.outcomes.every((one) => one.accepted === 1), JSON.stringify(page.outcomes));
const clicks = page.reports().filter((one) => one.body.event === "click");
assert.equal(clicks.length, 1, "a click counts once a page");
assert.equal(clicks[0].body.properties.decision_id, page.window.optimizer.decisions.hero.decision_id);
for (const { options } of page.reports()) {
  assert.equal(options.headers, undefined, "nothing that a browser would have to ask leave for");
  assert.equal(options.keepalive, true, "a report outlives its page");
}

// The next page of the same visitor: what was seen counts once, and elements that come later are decided too.
const next = open(`<h1 data-placement="hero">As it is</h1>`, { customer: "page-1", exposure: "shown" });
await until(() => next.outcomes.length === 1, "seen again");
assert.equal(next.outcomes[0].duplicates, 1);
next.document.body.insertAdjacentHTML("beforeend", `<em data-placement="banner" data-field="title">Old</em>`);
await next.window.optimizer.run();
assert.equal(next.document.querySelector("em").textContent, "<b>Sale</b>");

// Many placements, some of which are none: those that could be decided are, the rest is shown as it is.
const many = open(
  Array.from({ length: 22 }, (_, i) => `<s data-placement="none-${i}">As it is</s>`).join("") + `<h1 data-placement="hero">?</h1>`,
);
await until(() => many.document.querySelector("h1").dataset.decided, "decided");
assert.notEqual(many.document.querySelector("h1").textContent, "?");
assert.equal(many.document.querySelector("s").textContent, "As it is");
assert.equal(many.document.querySelectorAll("[data-placement]:not([data-decided])").length, 0);

// A visitor who isn't known, by the browser's storage.
const anonymous = open(`<h1 data-placement="hero">As it is</h1>`);
await until(() => anonymous.document.querySelector("h1").dataset.decided, "decided");
assert.match(anonymous.requests[0].body.customer_id, /^[0-9a-f]{32}$/);
assert.equal(anonymous.window.localStorage.getItem("optimizer.customer"), anonymous.requests[0].body.customer_id);

// The service is busy when a click is reported: it is sent once more, as the same message, and counts once.
let busy = true;
const patient = open(`<h1 data-placement="hero">As it is</h1>`, {
  fetch: (url, options) => {
    if (!String(url).endsWith("/v1/t") || !busy) return fetch(url, options);
    busy = false;
    return Promise.resolve(new Response("{}", { status: 503 }));
  },
});
await until(() => patient.document.querySelector("h1").dataset.decided, "decided");
patient.document.querySelector("h1").click();
await until(() => patient.outcomes.length === 2, "sent again");
assert.equal(patient.outcomes[1].accepted, 1);
assert.equal(patient.reports()[0].options.body, patient.reports()[1].options.body);

// No answer in time, a key that doesn't work, attributes that are none: the page is shown as it is.
const late = (_url, { signal }) => new Promise((_, refuse) => signal.addEventListener("abort", () => refuse(new Error("late"))));
for (const options of [{ fetch: late, timeout: "50", keepSignal: true }, { key: "opt_x" }, { attributes: "{" }]) {
  const began = Date.now();
  const { document: shown } = open(`<h1 data-placement="hero">As it is</h1>`, options);
  await until(() => shown.querySelector("h1").dataset.decided !== undefined, "shown");
  assert.equal(shown.querySelector("h1").textContent, "As it is");
  assert.ok(Date.now() - began < 1000);
}
process.exit(0);
