// The page: its views, the key of this tab, and what is polled.
import { Adapters } from "./adapters.js"
import { key, useKey } from "./api.js"
import { Ask } from "./ask.js"
import { Grid } from "./grid.js"
import { html, render, signal, useEffect } from "./lib.js"
import { Server } from "./server.js"
import { base, catalogueError, forget, isLoaded, refresh, watchFusion } from "./store.js"
import { setTheme, theme, THEMES } from "./theme.js"

const VIEWS = { ask: ["Ask", Ask], grid: ["Weights", Grid], adapters: ["Adapters", Adapters], server: ["Server", Server] }
const FUSION_POLL_MS = 3000
const RETRY_MS = 2000

const here = () => (Object.hasOwn(VIEWS, location.hash.slice(1)) ? location.hash.slice(1) : "ask")
const view = signal(here())
addEventListener("hashchange", () => (view.value = here()))

function App() {
  useEffect(poll, [key.value])
  const Shown = VIEWS[view.value][1]
  return html`<header class="top">
      <h1>lora-compose</h1>
      <span class="muted base">${base}</span>
      <nav aria-label="Views">
        ${Object.entries(VIEWS).map(
          ([name, [text]]) => html`<a key=${name} href=${`#${name}`} aria-current=${view.value === name ? "page" : undefined}>${text}</a>`,
        )}
      </nav>
      <${Key} />
      <select class="theme" aria-label="Colours" value=${theme} onChange=${(event) => setTheme(event.target.value)}>
        ${Object.entries(THEMES).map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}
      </select>
    </header>
    <main>
      <${Notice} />
      <${Shown} />
    </main>`
}

const typedKey = signal(key.value)

function takeKey(text) {
  typedKey.value = text
  useKey(text)
}

function Key() {
  const submit = (event) => {
    event.preventDefault()
    takeKey(typedKey.value.trim())
  }
  return html`<form class="key" onSubmit=${submit} autocomplete="off">
    <input type="password" aria-label="API key" placeholder="API key" autocomplete="off" spellcheck="false" value=${typedKey} onInput=${(event) => (typedKey.value = event.target.value)} aria-invalid=${Boolean(key.value) && catalogueError.value?.status === 401} />
    <button type="submit">Use</button>
    ${key.value && html`<button type="button" class="quiet" onClick=${() => takeKey("")}>Forget</button>`}
  </form>`
}

function Notice() {
  const error = catalogueError.value
  if (!error) return isLoaded.value ? null : html`<p class="muted">Reading the catalogue…</p>`
  if (error.status === 401) {
    return html`<p class="notice" role="alert">${
      key.value ? "The server refuses this key. Type another at the top." : "This server needs an API key. Type it at the top; it stays in this tab."
    }</p>`
  }
  if (error.code === "engine_loading") return html`<p class="notice" role="status">The model is loading.</p>`
  return html`<p class="notice" role="alert">${error.message} <code>${error.code}</code></p>`
}

// Read the catalogue until it is there, and what is fused while the page is visible.
function poll() {
  let timer = 0
  let isOver = false
  async function look() {
    if (!isLoaded.value && ![401, 403].includes(catalogueError.value?.status)) await refresh()
    if (isLoaded.value && !document.hidden) await watchFusion()
    if (!isOver) timer = setTimeout(look, isLoaded.value ? FUSION_POLL_MS : RETRY_MS)
  }
  forget()
  look()
  return () => {
    isOver = true
    clearTimeout(timer)
  }
}

setTheme(theme.value)
render(html`<${App} />`, document.getElementById("app"))
