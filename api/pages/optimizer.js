/* Decides what a page shows, and reports what its visitor met and clicked. No dependencies, no cookies.
 *
 *   <style>
 *     @keyframes optimizer { from, to { visibility: hidden } }
 *     [data-placement]:not([data-decided]) { animation: optimizer 1.5s step-end }
 *   </style>
 *   <script src="https://optimizer.example/optimizer.js" data-key="opt_pub_…" defer></script>
 *   <h1 data-placement="homepage-hero" data-field="title">Welcome</h1>
 *
 * What stands in the page is shown when no answer comes in time; the style sees to it even where this script never
 * arrives. Attributes of the script's element:
 *   data-key         the publishable key (needed)
 *   data-server      the service's address, where this script comes from elsewhere
 *   data-customer    the customer's id, if known; else a random one is kept in this browser's storage
 *   data-attributes  JSON of attributes that are declared public
 *   data-timeout     milliseconds until the page is shown as it is (default 1000)
 *   data-exposure    event reported when an element has been seen (default: none)
 *   data-click       event reported when it is clicked (default "click"; "" for none)
 * Attributes of an element:
 *   data-placement   which placement; data-field which member of its content (default: the only one, or "text")
 *   data-attribute   the element's attribute to set instead of its text: href, src, alt, title or value
 * Where a variant says that nothing is delivered, the element is hidden.
 */
(function () {
  "use strict";
  if (window.optimizer) return; // once a page
  const script = document.currentScript;
  const settings = script.dataset;
  const base = (settings.server || new URL(script.src).origin).replace(/\/+$/, "");
  const settable = ["href", "src", "alt", "title", "value"];
  const timeout = Number(settings.timeout || 1000);
  const clickEvent = settings.click === undefined ? "click" : settings.click;
  const decisions = {}; // by placement
  const reported = new Set();
  let own; // the visitor's id on this page, where storage is off

  function customer() {
    if (settings.customer) return settings.customer;
    const name = "optimizer.customer";
    try {
      const kept = localStorage.getItem(name);
      if (kept) return kept;
      localStorage.setItem(name, (own = own || random()));
    } catch (error) {
      own = own || random(); // storage is off
    }
    return own;
  }

  function random() {
    const bytes = crypto.getRandomValues(new Uint8Array(16)); // crypto.randomUUID is for https alone
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  async function decide(placements, signal) {
    const attributes = settings.attributes ? JSON.parse(settings.attributes) : undefined;
    const answer = await fetch(base + "/v1/decisions", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-API-Key": settings.key },
      body: JSON.stringify({ placements, customer_id: customer(), attributes }),
      credentials: "omit",
      signal,
    });
    if (answer.status === 404 && placements.length > 1) {
      return Promise.all(placements.map((one) => decide([one], signal).catch(warn))); // one that is none harms no other
    }
    if (!answer.ok) throw new Error("the service answered " + answer.status);
    for (const one of (await answer.json()).decisions) decisions[one.placement] = one;
  }

  async function decideAll(placements) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), timeout);
    const calls = [];
    for (let at = 0; at < placements.length; at += 20) {
      calls.push(decide(placements.slice(at, at + 20), controller.signal).catch(warn));
    }
    await Promise.all(calls);
    clearTimeout(timer);
  }

  function warn(error) {
    console.warn("optimizer: the page is shown as it is:", error.message);
  }

  function report(event, decision, isOnceEver) {
    if (!event || !decision || !decision.decision_id) return;
    const id = decision.decision_id + ":" + event;
    if (reported.has(id)) return; // once a page
    reported.add(id);
    send({
      writeKey: settings.key,
      anonymousId: customer(),
      event,
      messageId: isOnceEver ? id : id + ":" + Date.now(),
      properties: { decision_id: decision.decision_id },
    });
  }

  // A click often leads to another page, so the report must leave at once: as text, with the key in it, a browser sends
  // it without asking first (a preflight), and goes on sending when the page is gone.
  function send(message, isSecond) {
    const url = base + "/v1/t";
    const body = JSON.stringify(message);
    if (!("keepalive" in Request.prototype) && navigator.sendBeacon) return navigator.sendBeacon(url, body);
    const again = () => isSecond || setTimeout(send, 2000, message, true); // the same messageId: it counts once
    return fetch(url, { method: "POST", body, keepalive: true, credentials: "omit" }).then(
      (answer) => (answer.status === 429 || answer.status >= 500 ? again() : undefined),
      again,
    );
  }

  function member(content, field) {
    if (content === null || typeof content !== "object") return field ? undefined : content;
    if (field) return field.split(".").reduce((value, step) => (value == null ? undefined : value[step]), content);
    const names = Object.keys(content);
    return names.length === 1 ? content[names[0]] : content.text;
  }

  function isSafe(attribute, value) {
    if (!settable.includes(attribute)) return false;
    if (attribute !== "href" && attribute !== "src") return true;
    return ["http:", "https:", "mailto:", "tel:"].includes(new URL(value, document.baseURI).protocol);
  }

  function fill(element, decision) {
    element.hidden = !decision.deliver;
    const value = member(decision.content, element.dataset.field);
    const attribute = element.dataset.attribute;
    if (value === undefined || value === null || typeof value === "object") return;
    if (!attribute) element.textContent = String(value); // text, never markup
    else if (isSafe(attribute, String(value))) element.setAttribute(attribute, String(value));
  }

  function render(element) {
    const decision = decisions[element.dataset.placement];
    try {
      if (decision) fill(element, decision);
    } catch (error) {
      warn(error); // an address that is none, say
    } finally {
      element.dataset.decided = decision ? decision.variant : ""; // shows it, whatever happened
    }
  }

  function watch(elements) {
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        report(settings.exposure, decisions[target.dataset.placement], true);
      }
    });
    for (const element of elements) {
      if (settings.exposure) seen.observe(element);
      element.addEventListener("click", () => report(clickEvent, decisions[element.dataset.placement]));
    }
  }

  async function run() {
    const elements = Array.from(document.querySelectorAll("[data-placement]:not([data-decided])"));
    const placements = new Set(elements.map((element) => element.dataset.placement));
    await decideAll(Array.from(placements));
    elements.forEach(render);
    watch(elements);
    document.dispatchEvent(new CustomEvent("optimizer:decided", { detail: decisions }));
  }

  window.optimizer = { decisions, run, report: (event, placement) => report(event, decisions[placement]) };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", run);
  else run();
})();
