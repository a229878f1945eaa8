// The benchmarks of this server: start one, watch it, open its report.
import { address, call, json, key } from "./api.js"
import { save } from "./files.js"
import { html, signal } from "./lib.js"
import { Hidden, Refusal } from "./refusal.js"
import { benchmarks, served, setting, watch } from "./store.js"

const SHOWN = 5
const LONGEST = 8

const seconds = signal(120)
const refused = signal(null)

export const watchRuns = () => watch("v1/benchmarks", benchmarks)

async function attempt(action) {
  refused.value = null
  try {
    await action()
  } catch (error) {
    refused.value = error
  }
  await watchRuns()
}

// The adapters of the sliders, or the first ones if fewer than two are set.
function chosen() {
  const used = setting.value.members.map(({ name }) => name)
  return (used.length > 1 ? used : served.value.map(({ name }) => name)).slice(0, LONGEST)
}

function planOf(adapters) {
  const all = adapters.length > 1 ? [`stack:${adapters.length}`, `merge:${adapters.length}`] : []
  return { adapters, arms: ["base", "single", ...all], max_seconds: seconds.value }
}

export function Benchmark() {
  const found = benchmarks.value
  if (!found || found instanceof Error) {
    return html`<section aria-label="Benchmark"><h2>Benchmark</h2><${Hidden} error=${found} what="benchmarks" /></section>`
  }
  const adapters = chosen()
  const isRunning = found.data.some(({ status }) => status === "running")
  const start = (event) => {
    event.preventDefault()
    attempt(() => json("POST", "v1/benchmarks", { body: planOf(adapters) }))
  }
  return html`<section aria-label="Benchmark" class="wide">
    <h2>Benchmark</h2>
    <p class="muted">
      Measures on this server what the base, one adapter${adapters.length > 1 && html`, and ${adapters.length} adapters as a stack and as a merge`} cost. It slows other requests, and stops if they need the server.
    </p>
    <form class="row" onSubmit=${start}>
      <label for="bench-seconds">Seconds, at most</label>
      <input id="bench-seconds" type="number" min="10" max="1800" step="1" required value=${seconds} onChange=${(event) => (seconds.value = event.target.valueAsNumber)} />
      <button type="submit" disabled=${isRunning || adapters.length === 0}>Start</button>
    </form>
    <${Refusal} error=${refused.value} />
    ${found.data.length > 0 &&
    html`<div class="scroll"><table>
      <thead><tr><th>Started</th><th>Adapters</th><th>State</th><th></th></tr></thead>
      <tbody>${found.data.slice(0, SHOWN).map((run) => html`<${Run} key=${run.id} run=${run} />`)}</tbody>
    </table></div>`}
  </section>`
}

function Run({ run: { id, created, plan, status, progress, error } }) {
  const path = `v1/benchmarks/${encodeURIComponent(id)}`
  return html`<tr>
    <td>${new Date(created * 1000).toLocaleString()}</td>
    <td><code>${plan.adapters.join(", ")}</code></td>
    <td class="state">${status}${status === "running" && html`<${Progress} progress=${progress} />`}<${Refusal} error=${error} /></td>
    <td class="actions">
      ${status === "running" && html`<button class="quiet" onClick=${() => attempt(() => json("DELETE", path))}>Cancel</button>`}
      ${status === "succeeded" && html`<${Report} id=${id} path=${`${path}/report`} />`}
    </td>
  </tr>`
}

function Progress({ progress }) {
  if (!progress) return html`<span class="muted"> starting</span>`
  const { done, total, what } = progress
  return html` <progress aria-label="Benchmark" value=${total ? done : undefined} max=${total ?? undefined}></progress>
    <span class="muted">${total ? `${done} of ${total} ` : ""}${what}</span>`
}

// A link cannot send the key, so with a key the report is a download.
function Report({ id, path }) {
  if (!key.value) return html`<a href=${address(path)} target="_blank" rel="noopener">Open the report</a>`
  const download = async () => save(`${id}.html`, "text/html", [await (await call("GET", path)).text()])
  return html`<button class="quiet" onClick=${() => attempt(download)}>Download the report</button>`
}
