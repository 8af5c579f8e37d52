// Keeps the page as the cluster is. Without it everything is there as well, as it was when the page was loaded.
"use strict";
(() => {
  const live = document.getElementById("live");
  const asof = document.getElementById("asof");
  const said = document.getElementById("said");
  const SLOWEST_MS = 30000;
  let wait = 1000;
  let stream = null;
  let lostAt = null;
  let again = 0;

  const clock = (at) => at.toISOString().slice(11, 19);

  function show(state) {
    live.hidden = false;
    live.dataset.state = state;
    live.textContent = state === "live" ? "● Live" : `✕ Not live since ${clock(lostAt)} UTC`;
  }

  // What a node is known by among its neighbours, so that what a reader opened stays open when lines come in above it.
  const key = (node) => (node.nodeType === 1 ? node.dataset.key || node.id || "" : "");

  // Make `old` like `fresh`, and touch nothing that is alike already: focus, scrolling, open details and selections stay.
  function become(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || key(old) !== key(fresh)) {
      old.replaceWith(fresh);
      return;
    }
    if (old.nodeType !== 1) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (name === "open" && old.nodeName === "DETAILS") continue;
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    // What somebody types is theirs.
    if (old.nodeName === "FORM") return;
    const were = [...old.childNodes];
    const are = [...fresh.childNodes];
    are.forEach((node, at) => (at < were.length ? become(were[at], node) : old.append(node)));
    were.slice(are.length).forEach((node) => node.remove());
  }

  function take(name, html, digest) {
    const section = document.getElementById(`section-${name}`);
    if (!section) return;
    const template = document.createElement("template");
    template.innerHTML = html;
    const fresh = section.cloneNode(false);
    fresh.dataset.digest = digest;
    fresh.append(template.content);
    become(section, fresh);
  }

  function have() {
    return [...document.querySelectorAll("[data-section]")].map((s) => s.dataset.digest).join(".");
  }

  function open() {
    const asked = new URLSearchParams(location.search);
    asked.set("have", have());
    stream = new EventSource(`/cluster/live?${asked}`);
    stream.addEventListener("look", (event) => {
      const look = JSON.parse(event.data);
      for (const [name, [digest, html]] of Object.entries(look.sections)) take(name, html, digest);
      asof.innerHTML = look.asof;
      if (look.said) said.textContent = look.said;
      wait = 1000;
      lostAt = null;
      show("live");
    });
    stream.addEventListener("error", lose);
  }

  function lose() {
    stream.close();
    lostAt = lostAt || new Date();
    show("lost");
    again = setTimeout(open, wait);
    wait = Math.min(2 * wait, SLOWEST_MS);
  }

  // Nobody looks at a hidden page.
  document.addEventListener("visibilitychange", () => {
    clearTimeout(again);
    stream.close();
    if (!document.hidden) open();
  });
  open();
})();
