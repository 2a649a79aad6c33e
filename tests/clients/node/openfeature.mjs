// OpenFeature's own providers, unmodified, against the real server: one flag at a time, and all flags of a page.
import assert from "node:assert/strict";
import { OpenFeature as Server } from "@openfeature/server-sdk";
import { OFREPProvider } from "@openfeature/ofrep-provider";
import { OpenFeature as Web } from "@openfeature/web-sdk";
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";

const { URL: baseUrl, KEY } = process.env;
const headers = [["Authorization", `Bearer ${KEY}`]];

// The server's provider, with a base address that ends with a slash.
await Server.setProviderAndWait(new OFREPProvider({ baseUrl: `${baseUrl}/`, headers }));
const server = Server.getClient();
const one = await server.getStringDetails("hero", "?", { targetingKey: "node-1", orders: 2 });
assert.equal(one.errorCode, undefined, one.errorMessage);
assert.ok(["Hi", "A gift"].includes(one.value));
assert.equal(one.reason, "SPLIT");
assert.equal(one.flagMetadata.experiment, "exp");
assert.equal(one.flagMetadata.propensity, 0.5);
assert.equal((await server.getStringDetails("hero", "?", { targetingKey: "node-1" })).variant, one.variant);
assert.equal((await server.getStringDetails("nothing", "x", { targetingKey: "n" })).errorCode, "FLAG_NOT_FOUND");
assert.equal((await server.getStringDetails("hero", "x", {})).errorCode, "TARGETING_KEY_MISSING");
assert.equal((await server.getBooleanDetails("hero", true, { targetingKey: "n" })).errorCode, "TYPE_MISMATCH");

// The page's provider: all flags at once, then an unchanged answer, then another customer.
const seen = [];
const fetchImplementation = async (url, options) => {
  const answer = await fetch(url, options);
  seen.push(answer.status);
  return answer;
};
const provider = new OFREPWebProvider({ baseUrl, headers, fetchImplementation, pollInterval: 0 });
await Web.setContext({ targetingKey: "node-1" });
await Web.setProviderAndWait(provider);
const web = Web.getClient();
assert.equal(web.getStringDetails("hero", "?").value, one.value, "a unit that has a decision gets its variant");
await Web.setContext({ targetingKey: "node-1", theme: "dark" });
assert.deepEqual(seen, [200, 304], "nothing changed, so nothing was sent");
assert.equal(web.getStringValue("hero", "?"), one.value);
const values = new Set();
for (let i = 0; i < 12; i += 1) {
  await Web.setContext({ targetingKey: `node-web-${i}` });
  values.add(web.getStringValue("hero", "?"));
}
assert.deepEqual([...values].sort(), ["A gift", "Hi"]);

// What a page shows is recorded where it is shown, by a hook; then clicks can be reported by decision.
const recorded = {};
web.addHooks({
  async after({ flagKey, context }) {
    const answer = await fetch(`${baseUrl}/ofrep/v1/evaluate/flags/${flagKey}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...Object.fromEntries(headers) },
      body: JSON.stringify({ context }),
    });
    recorded[flagKey] = (await answer.json()).metadata;
  },
});
await Web.setContext({ targetingKey: "node-shown" });
const shown = web.getStringDetails("hero", "?");
for (let i = 0; i < 100 && !recorded.hero; i += 1) await new Promise((resolve) => setTimeout(resolve, 20));
assert.equal(shown.flagMetadata.decision_id, undefined, "a look has no decision");
assert.match(recorded.hero.decision_id, /^[0-9a-f]{32}$/);
assert.equal(recorded.hero.recorded, true);
web.clearHooks();

// A context that can't be used: defaults of the code, and never the values of the customer before.
await Web.setContext({ targetingKey: "node-1", occasion_id: 5 });
assert.equal(web.getStringDetails("hero", "fallback").value, "fallback");
assert.equal(web.getStringDetails("hero", "fallback").errorCode, "INVALID_CONTEXT");
await Web.setContext({});
assert.equal(web.getStringDetails("hero", "fallback").errorCode, "TARGETING_KEY_MISSING");
await Promise.all([Server.close(), Web.close()]);
