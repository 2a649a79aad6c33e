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

function open(body, { key = PAGE_KEY, fetch: ask = fetch, ...data } = {}) {
  const dom = new JSDOM(`<body>${body}</body>`, {
    url: `${ORIGIN}/page`,
    runScripts: "outside-only",
    virtualConsole: new VirtualConsole(),
  });
  const { window } = dom;
  const requests = [];
  const outcomes = [];
  window.fetch = async (url, options) => {
    requests.push({ url: String(url), body: JSON.parse(options.body) });
    const answer = await ask(url, { ...options, signal: undefined, headers: { ...options.headers, Origin: ORIGIN } });
    if (String(url).endsWith("/v1/outcomes")) outcomes.push(await answer.clone().json());
    return answer;
  };
  window.IntersectionObserver = class {
    constructor(call) { this.call = call; }
    observe(target) { setTimeout(() => this.call([{ isIntersecting: true, target }]), 0); }
    unobserve() {}
  };
  const script = { src: `${base}/optimizer.js`, dataset: { key, ...data } };
  Object.defineProperty(window.document, "currentScript", { get: () => script });
  window.eval(source);
  return { window, document: window.document, requests, outcomes };
}

const page = open(
  `<h1 data-placement="hero">As it is</h1><a id="link" data-placement="hero" data-attribute="href" href="#">x</a>
   <b data-placement="banner" data-field="title">Old</b><i data-placement="banner" data-attribute="onclick"></i>`,
  { customer: "page-1", exposure: "shown" },
);
const heading = page.document.querySelector("h1");
await until(() => heading.dataset.decided, "the page is decided");
assert.ok(["Hi", "A gift"].includes(heading.textContent));
assert.equal(page.document.querySelector("b").textContent, "<b>Sale</b>", "content is text, never markup");
assert.equal(page.document.querySelector("b").children.length, 0);
assert.equal(page.document.querySelector("i").getAttribute("onclick"), null);
assert.equal(page.requests.filter((one) => one.url.endsWith("/v1/decisions")).length, 1, "one call for all");
await until(() => page.outcomes.length >= 1, "what was seen is reported");
heading.click();
heading.click();
await until(() => page.requests.some((one) => one.body.event === "click"), "the click is reported");
await until(() => page.outcomes.length >= 2, "the click is answered");
assert.ok(page.outcomes.every((one) => one.accepted === 1), JSON.stringify(page.outcomes));
const clicks = page.requests.filter((one) => one.body.event === "click");
assert.equal(clicks.length, 1, "a click counts once a page");
assert.equal(clicks[0].body.decision_id, page.window.optimizer.decisions.hero.decision_id);

// The same visitor again, known by the browser's storage.
const anonymous = open(`<h1 data-placement="hero">As it is</h1>`);
await until(() => anonymous.document.querySelector("h1").dataset.decided, "decided");
assert.match(anonymous.requests[0].body.customer_id, /^[0-9a-f-]{36}$/);
assert.equal(anonymous.window.localStorage.getItem("optimizer.customer"), anonymous.requests[0].body.customer_id);

// No answer in time, and a key that doesn't work: the page is shown as it is.
for (const options of [{ fetch: () => new Promise((_, refuse) => setTimeout(() => refuse(new Error("late")), 60)) }, { key: "opt_x" }]) {
  const { document } = open(`<h1 data-placement="hero">As it is</h1>`, { timeout: "50", ...options });
  await until(() => document.querySelector("h1").dataset.decided !== undefined, "shown");
  assert.equal(document.querySelector("h1").textContent, "As it is");
}
process.exit(0);
