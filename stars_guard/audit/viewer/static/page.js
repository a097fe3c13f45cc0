// The theme button and the live view. Text goes into the page as text only.
"use strict";

const theme = document.getElementById("theme");
const themes = ["auto", "light", "dark"];
let chosen = localStorage.getItem("theme") || "auto";

function showTheme() {
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  theme.textContent = `Theme: ${chosen}`;
}

theme.hidden = false;
theme.addEventListener("click", () => {
  chosen = themes[(themes.indexOf(chosen) + 1) % themes.length];
  localStorage.setItem("theme", chosen);
  showTheme();
});
showTheme();

// A link to a segment opens what is folded there.
addEventListener("hashchange", () => {
  const beside = document.getElementById(location.hash.slice(1))?.querySelector(":scope > details");
  if (beside) beside.open = true;
});

const live = document.getElementById("live");
if (live) {
  const state = document.getElementById("state");
  const pause = document.getElementById("pause");
  const most = 200;
  let waiting = null;

  const part = (name, text, kind) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  const show = (call) => {
    const row = document.createElement("li");
    const link = part("a", call.preview || call.id.slice(0, 12));
    link.href = `/calls/${encodeURIComponent(call.id)}`;
    const bad = call.rejections > 0;
    row.append(
      part("time", call.started_at.slice(11, 19)), link, part("span", call.policy),
      part("span", call.finish, "badge"),
      part("span", bad ? `${call.rejections} of ${call.proposals} rejected` : "none rejected", bad ? "badge bad" : "badge good"),
      part("span", call.judges.join(", "), "by"),
    );
    live.prepend(row);
    while (live.children.length > most) live.lastChild.remove();
  };

  const say = (text, kind) => {
    state.textContent = text;
    state.className = `badge ${kind}`;
  };

  const events = new EventSource(live.dataset.events);
  events.addEventListener("ready", () => say("live", "good"));
  events.onerror = () => say("lost, trying again", "bad");
  events.onmessage = (event) => {
    const call = JSON.parse(event.data);
    if (waiting) waiting.push(call);
    else show(call);
    if (waiting) say(`paused, ${waiting.length} waiting`, "fair");
  };
  pause.addEventListener("click", () => {
    if (waiting) {
      waiting.forEach(show);
      waiting = null;
      say("live", "good");
    } else {
      waiting = [];
      say("paused", "fair");
    }
    pause.setAttribute("aria-pressed", String(waiting !== null));
    pause.textContent = waiting ? "Go on" : "Pause";
  });
}
