// Segment's clients for Node and for pages and RudderStack's for Node, unmodified, against the real server.
import assert from "node:assert/strict";
import RudderAnalytics from "@rudderstack/rudder-sdk-node";
import { Analytics } from "@segment/analytics-node";
import { JSDOM } from "jsdom";

const { URL: host, KEY, PAGE_KEY, ORIGIN } = process.env;

const server = new Analytics({ writeKey: KEY, host, flushAt: 2 });
const failed = [];
server.on("error", (error) => failed.push(error));
server.identify({ userId: "node-user", traits: { plan: "gold" } });
server.track({ userId: "node-user", event: "click", properties: { page: "home" } });
server.track({ userId: "node-user", event: "Order Completed", properties: { revenue: 7.25 } });
await server.closeAndFlush({ timeout: 5000 });
assert.deepEqual(failed, []);

const rudder = new RudderAnalytics(KEY, { dataPlaneUrl: host, errorHandler: (error) => failed.push(error), gzip: true });
rudder.identify({ userId: "rudder-user", traits: { plan: "gold" } });
rudder.track({ userId: "rudder-user", event: "click" });
rudder.track({ userId: "rudder-user", event: "Order Completed", properties: { revenue: 3.5 } });
while (rudder.queue.length > 0) await rudder.flush(); // its first message goes at once and alone
assert.deepEqual(failed, []);

// A page: its client posts text to one-letter paths, with the key inside.
const { window } = new JSDOM("<body></body>", { url: `${ORIGIN}/page`, pretendToBeVisual: true });
for (const name of ["window", "document", "location", "localStorage", "sessionStorage", "history"]) {
  Object.defineProperty(globalThis, name, { value: name === "window" ? window : window[name], configurable: true });
}
Object.defineProperty(globalThis, "navigator", { value: window.navigator, configurable: true });
const answers = [];
globalThis.fetch = window.fetch = ((ask) => async (url, options) => {
  const headers = { ...Object.fromEntries(new Headers(options?.headers)), Origin: ORIGIN };
  const answer = await ask(url, { ...options, headers });
  answers.push({ url: String(url), status: answer.status, body: await answer.clone().json().catch(() => null) });
  return answer;
})(fetch);
const { AnalyticsBrowser } = await import("@segment/analytics-next");
const page = AnalyticsBrowser.load(
  { writeKey: PAGE_KEY, cdnSettings: { integrations: { "Segment.io": { apiKey: PAGE_KEY } }, plan: {} } },
  { integrations: { "Segment.io": { apiHost: `${host.replace("http://", "")}/v1`, protocol: "http" } } },
);
await page.track("click", { decision_id: process.env.DECISION });
for (let i = 0; i < 100 && !answers.some((one) => one.url.endsWith("/v1/t")); i += 1) {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
const sent = answers.find((one) => one.url.endsWith("/v1/t"));
assert.ok(sent, `nothing was sent: ${JSON.stringify(answers)}`);
assert.equal(sent.status, 200, JSON.stringify(sent));
assert.equal(sent.body.accepted, 1, JSON.stringify(sent.body));
process.exit(0);
