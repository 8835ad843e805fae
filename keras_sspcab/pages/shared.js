"use strict";

// What the pages of servers share; each names its server, `SERVER`.

const element = (id) => document.getElementById(id);
const root = document.documentElement;

// With the sign that is as wide as a plus.
const format = (value, digits = 2) => value.toFixed(digits).replace("-", "\u2212");

function say(text, isError = false) {
  // Only what is new: it is read aloud.
  if (element("message").textContent !== text) element("message").textContent = text;
  element("message").classList.toggle("error", isError);
}

async function ask(path, options = {}) {
  const token = element("token").value;
  const authorization = token ? { authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...authorization, ...options.headers } });
  } catch {
    throw new Error(`The ${SERVER} cannot be reached.`);
  }
  if (response.status === 401) element("token-entry").hidden = false;
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  const error = new Error(answer.error || `HTTP ${response.status}`);
  throw Object.assign(error, { status: response.status });
}

const askJson = async (...question) => (await ask(...question)).json();

function showOpacity() {
  root.style.setProperty("--heat", element("opacity").value / 100);
  element("opacity-value").value = `${element("opacity").value} %`;
}

element("opacity").addEventListener("input", showOpacity);
showOpacity();
