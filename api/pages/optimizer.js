/* Decides what a page shows, and reports what its visitor met and clicked. No dependencies, no cookies.
 *
 *   <style>[data-placement]:not([data-decided]) { visibility: hidden }</style>
 *   <script src="https://optimizer.example/optimizer.js" data-key="opt_pub_…" defer></script>
 *   <h1 data-placement="homepage-hero" data-field="title">Welcome</h1>
 *
 * What stands in the page is shown when no answer comes in time. Attributes of the script's element:
 *   data-key       the publishable key (needed)
 *   data-customer  the customer's id, if known; else a random one is kept in this browser's storage
 *   data-attributes  JSON of attributes that are declared public
 *   data-timeout   milliseconds until the page is shown as it is (default 1000)
 *   data-exposure  event reported when an element has been seen (default: none)
 *   data-click     event reported when it is clicked (default "click"; "" for none)
 * Attributes of an element:
 *   data-placement  which placement; data-field which member of its content (default: the only one, or "text")
 *   data-attribute  the element's attribute to set instead of its text: href, src, alt, title or value
 */
(function () {
  "use strict";
  const script = document.currentScript;
  const base = new URL(script.src).origin;
  const settings = script.dataset;
  const settable = ["href", "src", "alt", "title", "value"];
  const timeout = Number(settings.timeout || 1000);
  const clickEvent = settings.click === undefined ? "click" : settings.click;
  const decisions = {}; // by placement
  const reported = new Set();

  function customer() {
    if (settings.customer) return settings.customer;
    const name = "optimizer.customer";
    try {
      let id = localStorage.getItem(name);
      if (!id) localStorage.setItem(name, (id = crypto.randomUUID()));
      return id;
    } catch (error) {
      return (customer.once = customer.once || crypto.randomUUID()); // storage is off: one for this page
    }
  }

  function post(path, body, options) {
    const headers = { "Content-Type": "application/json", "X-API-Key": settings.key };
    return fetch(base + path, Object.assign({ method: "POST", headers, body: JSON.stringify(body) }, options));
  }

  async function decide(placements) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), timeout);
    const attributes = settings.attributes ? JSON.parse(settings.attributes) : undefined;
    try {
      const asked = { placements, customer_id: customer(), attributes };
      const answer = await post("/v1/decisions", asked, { signal: controller.signal });
      if (!answer.ok) throw new Error("answered " + answer.status);
      for (const one of (await answer.json()).decisions) decisions[one.placement] = one;
    } finally {
      clearTimeout(timer);
    }
  }

  function report(event, decision) {
    if (!event || !decision || !decision.decision_id) return;
    const id = decision.decision_id + ":" + event;
    if (reported.has(id)) return; // once a page
    reported.add(id);
    const outcome = { decision_id: decision.decision_id, event, outcome_id: id + ":" + Date.now() };
    post("/v1/outcomes", outcome, { keepalive: true }).catch(() => reported.delete(id));
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

  function render(element) {
    const decision = decisions[element.dataset.placement];
    if (decision && decision.deliver) {
      const value = member(decision.content, element.dataset.field);
      const attribute = element.dataset.attribute;
      if (value !== undefined && value !== null && typeof value !== "object") {
        if (!attribute) element.textContent = String(value); // text, never markup
        else if (isSafe(attribute, String(value))) element.setAttribute(attribute, String(value));
      }
    }
    element.dataset.decided = decision ? decision.variant : "";
  }

  function watch(elements) {
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        seen.unobserve(entry.target);
        report(settings.exposure, decisions[entry.target.dataset.placement]);
      }
    });
    for (const element of elements) {
      if (settings.exposure) seen.observe(element);
      element.addEventListener("click", () => report(clickEvent, decisions[element.dataset.placement]));
    }
  }

  async function run() {
    const elements = Array.from(document.querySelectorAll("[data-placement]"));
    const placements = Array.from(new Set(elements.map((element) => element.dataset.placement)));
    try {
      for (let at = 0; at < placements.length; at += 20) await decide(placements.slice(at, at + 20));
    } catch (error) {
      console.warn("optimizer: the page is shown as it is:", error.message);
    }
    elements.forEach(render);
    watch(elements);
    document.dispatchEvent(new CustomEvent("optimizer:decided", { detail: decisions }));
  }

  window.optimizer = { decisions, report: (event, placement) => report(event, decisions[placement]) };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", run);
  else run();
})();
