"use strict";
// Search, expanding types, copying and trying. Everything is read without it. Only ever text is put
// into the page, and the token is kept in its field alone.
document.documentElement.classList.add("alive");
const calls = [...document.querySelectorAll("details.call")];
const search = document.getElementById("search");

search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const call of calls) call.hidden = !words.every((word) => call.dataset.text.includes(word));
  for (const part of document.querySelectorAll("section.service")) {
    part.hidden = ![...part.querySelectorAll("details.call")].some((call) => !call.hidden);
  }
  document.getElementById("nothing").hidden = calls.some((call) => !call.hidden);
});

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !typing) { event.preventDefault(); search.focus(); }
  if (event.key === "Escape" && document.activeElement === search) {
    search.value = ""; search.dispatchEvent(new Event("input"));
  }
});

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", openTarget);
openTarget();

document.addEventListener("click", async (event) => {
  const link = event.target.closest("a.of");
  if (link) { event.preventDefault(); expand(link); }
  const copy = event.target.closest("button.copy");
  if (copy) {
    await navigator.clipboard.writeText(copy.parentElement.querySelector("code").textContent);
    copy.textContent = "copied";
    setTimeout(() => { copy.textContent = "copy"; }, 1200);
  }
  const send = event.target.closest("button.send");
  if (send) await attempt(send.closest(".try"), send);
});

// The fields of a type, below the row that names it.
function expand(link) {
  const cell = link.closest("td") || link.parentElement;
  const there = [...cell.children].find((child) => child.dataset.of === link.hash);
  if (there) { there.remove(); return; }
  const type = document.getElementById(decodeURIComponent(link.hash.slice(1)));
  const fields = type && type.querySelector(".fields");
  if (!fields) return;
  const copied = fields.cloneNode(true);
  copied.dataset.of = link.hash;
  cell.append(copied);
}

function address(form) {
  let path = form.dataset.path;
  const query = new URLSearchParams();
  const headers = {};
  for (const input of form.querySelectorAll("input.value")) {
    const value = input.value.trim();
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(value));
    else if (!value) continue;
    else if (input.dataset.in === "query") query.append(input.name, value);
    else headers[input.name] = value;
  }
  const tail = query.toString();
  return [tail ? `${path}?${tail}` : path, headers];
}

async function attempt(form, send) {
  if (form.stop) { form.stop.abort(); return; }
  const [path, headers] = address(form);
  const token = document.getElementById("token").value.trim();
  if (token) headers.authorization = `Bearer ${token}`;
  const text = form.querySelector("textarea"), file = form.querySelector("input[type=file]");
  let body = text ? text.value : undefined;
  if (text) headers["content-type"] = "application/json";
  if (file) body = file.files[0];
  const status = form.querySelector(".status"), output = form.querySelector("pre");
  form.stop = new AbortController();
  send.textContent = "stop"; status.textContent = "…"; status.className = "status"; output.textContent = "";
  try {
    const answer = await fetch(path, { method: form.dataset.verb, headers, body, signal: form.stop.signal });
    status.textContent = `${answer.status} ${answer.statusText}`;
    status.classList.add(answer.ok ? "good" : "bad");
    output.hidden = false;
    await show(answer, output, "stream" in form.dataset);
  } catch (error) {
    if (error.name !== "AbortError") { status.textContent = String(error); status.classList.add("bad"); }
  } finally {
    form.stop = null; send.textContent = "send";
  }
}

async function show(answer, output, stream) {
  if (stream && answer.ok) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      output.textContent = (output.textContent + piece.value).slice(-200000);
      output.scrollTop = output.scrollHeight;
    }
    return;
  }
  const told = [...answer.headers].filter(([name]) => /^(etag|pvc-revision|retry-after)$/.test(name));
  const head = told.map(([name, value]) => `${name}: ${value}\n`).join("");
  const text = await answer.text();
  try { output.textContent = head + JSON.stringify(JSON.parse(text), null, 2); }
  catch { output.textContent = head + text.slice(0, 200000); }
}
