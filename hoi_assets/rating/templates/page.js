"use strict";

// The server holds all there is to know; this page shows its state and sends one answer at a time.

const AGAIN_MS = 1000;
const SHOW_CHOICE_MS = 120;
const LONG_PROMPT = 160;
const UNDO_KEYS = ["Backspace", "u"];
const KEY_SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowDown: "↓", ArrowUp: "↑" };

const element = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

let state = null;
// False while an answer is on its way or a picture is not there yet: nobody votes on what is unseen.
let ready = false;
// Where the fault is that is to be named: per mille of the picture's width and height.
let mark = null;

function say(trouble) {
  element("trouble").textContent = trouble;
  element("trouble").hidden = !trouble;
}

// Ask until the server answers; an answer sent twice counts once.
async function ask(path, body) {
  const request = body === undefined
    ? { cache: "no-store" }
    : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  for (;;) {
    try {
      const reply = await fetch(path, request);
      const told = await reply.json();
      if (reply.ok) {
        say("");
        return told;
      }
      say(told.error);
      if (reply.status < 500) return null;
    } catch {
      const kept = body === undefined ? "" : "Your last answer is not kept yet. ";
      say(`${kept}The server does not answer; trying again…`);
    }
    await pause(AGAIN_MS);
  }
}

async function send(place, question, answer) {
  ready = false;
  const next = await ask("votes", { place, question, answer });
  if (next) await show(next);
  else await show(await ask("state"), element("trouble").textContent);
}

async function choose(option) {
  if (!ready || (state.now.mark && !mark)) return;
  ready = false;
  const { place, question, options } = state.now;
  const answer = state.now.mark ? `${option.answer}@${mark.join(",")}` : option.answer;
  element("options").children[options.indexOf(option)].classList.add("chosen");
  await pause(SHOW_CHOICE_MS);
  await send(place, question, answer);
}

async function undo() {
  if (!ready || !state.undo) return;
  await send(state.undo.place, state.undo.question, null);
}

async function show(next, trouble = "") {
  if (!next) return;
  const before = state && state.now ? state.now.place : null;
  state = next;
  const { done, total, now } = state;
  element("count").textContent = `${done} of ${total}`;
  element("bar").style.width = `${(100 * done) / total}%`;
  element("progress").setAttribute("aria-valuemax", total);
  element("progress").setAttribute("aria-valuenow", done);
  element("undo").disabled = !state.undo;
  element("task").hidden = !now;
  element("finished").hidden = Boolean(now);
  if (now) {
    showQuestion(now);
    if (now.place !== before) {
      showPrompt(now.prompt);
      await showPictures(now.pictures);
    }
  }
  if (trouble) say(trouble);
  ready = true;
  for (const path of state.ahead) new Image().src = path;
}

function showPrompt(prompt) {
  element("prompt").textContent = prompt;
  element("prompt").classList.toggle("long", prompt.length > LONG_PROMPT);
}

function showQuestion(now) {
  setMark(null);
  element("pictures").classList.toggle("marking", now.mark);
  element("options").classList.toggle("many", now.mark);
  element("question").textContent = now.text;
  if (now.of > 1) {
    const part = document.createElement("small");
    part.textContent = `${now.number} of ${now.of}`;
    element("question").append(part);
  }
  element("low").textContent = now.low;
  element("high").textContent = now.high;
  element("options").replaceChildren(...now.options.map(button));
  for (const made of element("options").children) made.disabled = now.mark;
}

function button(option) {
  const made = document.createElement("button");
  made.type = "button";
  const key = document.createElement("kbd");
  key.textContent = KEY_SIGNS[option.keys[0]] || option.keys[0];
  made.append(key);
  if (option.label) made.append(` ${option.label}`);
  else made.classList.add("bare");
  made.addEventListener("click", () => choose(option));
  return made;
}

function setMark(place) {
  mark = place;
  for (const dot of document.querySelectorAll(".mark")) dot.remove();
  for (const made of element("options").children) made.disabled = state.now.mark && !mark;
  if (!mark) return;
  const dot = document.createElement("span");
  dot.className = "mark";
  dot.style.left = `${mark[0] / 10}%`;
  dot.style.top = `${mark[1] / 10}%`;
  element("pictures").querySelector("figure").append(dot);
}

function markAt(event) {
  if (!ready || !state.now || !state.now.mark) return;
  const box = event.currentTarget.getBoundingClientRect();
  const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  setMark(share.map((value) => Math.max(0, Math.min(999, Math.floor(1000 * value)))));
}

async function showPictures(paths) {
  element("pictures").replaceChildren();
  const figures = await Promise.all(paths.map(figure));
  if (paths.length > 1) {
    figures.forEach((made, number) => {
      const label = document.createElement("figcaption");
      label.textContent = "AB"[number];
      made.append(label);
    });
  }
  element("pictures").style.setProperty("--count", paths.length);
  element("pictures").replaceChildren(...figures);
}

async function figure(path) {
  const picture = new Image();
  for (;;) {
    picture.src = path;
    try {
      await picture.decode();
      break;
    } catch {
      say("A picture does not arrive; trying again…");
      await pause(AGAIN_MS);
      picture.removeAttribute("src");
    }
  }
  say("");
  picture.alt = "";
  picture.style.setProperty("--ratio", picture.naturalWidth / picture.naturalHeight);
  picture.addEventListener("click", markAt);
  const made = document.createElement("figure");
  made.append(picture);
  return made;
}

document.addEventListener("keydown", (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const withControl = event.ctrlKey || event.metaKey;
  if (event.repeat || event.altKey || (withControl && key !== "z")) return;
  if (withControl || UNDO_KEYS.includes(key)) {
    event.preventDefault();
    undo();
    return;
  }
  const option = state && state.now && state.now.options.find((one) => one.keys.includes(key));
  if (option) {
    event.preventDefault();
    choose(option);
  }
});
element("undo").addEventListener("click", (event) => {
  // Else the next Space or Enter would undo again.
  event.currentTarget.blur();
  undo();
});
// Shown again from the browser's memory, the page may be older than the votes.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) window.location.reload();
});

(async () => show(await ask("state")))();
