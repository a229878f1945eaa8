// Refusals of the server, where they belong.
import { html } from "./lib.js"
import { refresh } from "./store.js"

export function Refusal({ error }) {
  return error && html`<p class="error" role="alert">${error.message} <code>${error.code}</code></p>`
}

// Why `what` is not shown: the key or the port may not see it, or the server refused.
export function Hidden({ error, what }) {
  if (error && [401, 403, 404].includes(error.status)) return html`<p class="muted">This key, or this port, does not show ${what}.</p>`
  return html`<${Refusal} error=${error} />`
}

// Do it, and read the catalogue again. `keep` gets the refusal, or null.
export async function change(keep, action) {
  keep(null)
  try {
    await action()
    await refresh()
  } catch (error) {
    keep(error)
  }
}
