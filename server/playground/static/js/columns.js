// One column: a setting, its answer, and what answered.
import { address, key } from "./api.js"
import { label } from "./answers.js"
import { curl, kind, python, title } from "./compositions.js"
import { load, pin, remove, columns, MAX_COLUMNS } from "./conversation.js"
import { html, useState } from "./lib.js"
import { Refusal } from "./refusal.js"
import { base } from "./store.js"
import { Answer } from "./tokens.js"

export function Column({ column }) {
  const setting = column.setting.value
  const answer = column.answer.value
  const name = title(setting, base.value)
  return html`<article class=${column.isLive ? "column live" : "column"} aria-label=${`Column ${name}`} data-status=${answer.status}>
    <header>
      <span class="badge">${column.isLive ? "sliders" : "pinned"} · ${kind(setting)}</span>
      ${column.isLive
        ? html`<button class="quiet" onClick=${pin} disabled=${columns.value.length >= MAX_COLUMNS}>Pin</button>`
        : html`<span>
            ${!setting.model && html`<button class="quiet" aria-label=${`Move the sliders to ${name}`} onClick=${() => load(setting)}>Use</button>`}
            <button class="quiet" aria-label=${`Remove the column ${name}`} onClick=${() => remove(column)}>Remove</button>
          </span>`}
      <h3>${name}</h3>
    </header>
    <div class="answer" aria-busy=${answer.status === "waiting" || answer.status === "streaming"}>
      ${answer.status === "idle" ? html`<p class="muted">No answer yet.</p>` : html`<${Answer} column=${column} />`}
      <${Refusal} error=${answer.error} />
      ${answer.status === "stopped" && html`<p class="muted">Stopped.</p>`}
    </div>
    ${answer.status === "done" && html`<${Facts} answer=${answer} />`}
    ${answer.status === "done" && html`<${Elsewhere} column=${column} />`}
  </article>`
}

const milliseconds = (value) => (value === null ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} ms`)

function Facts({ answer }) {
  const count = answer.tokens.length
  return html`<dl class="facts">
      <div><dt>First token</dt><dd>${milliseconds(answer.ttft)}</dd></div>
      <div><dt>Speed</dt><dd>${answer.speed === null ? "–" : `${answer.speed.toFixed(0)} tokens/s`}</dd></div>
      <div><dt>Length</dt><dd>${count} ${count === 1 ? "token" : "tokens"}${answer.finish === "length" ? ", cut off" : ""}</dd></div>
      <div class="wide"><dt>Answered by</dt><dd><code>${answer.model}</code>${answer.fused && html`<span class="muted"> ${answer.fused}</span>`}</dd></div>
    </dl>
    ${answer.compared instanceof Error &&
    html`<p class="error">The tokens are not compared with the base: ${answer.compared.message}</p>`}`
}

function Elsewhere({ column }) {
  const [shown, show] = useState("curl")
  const { isChat, ...asked } = column.request
  const body = { model: label(column), ...asked }
  const withKey = Boolean(key.value)
  const text =
    shown === "curl"
      ? curl(address(isChat ? "v1/chat/completions" : "v1/completions"), body, withKey)
      : python(address("v1"), body, withKey, isChat)
  return html`<details class="elsewhere">
    <summary>The same from a terminal</summary>
    <div class="row">
      ${["curl", "openai"].map(
        (one) => html`<button key=${one} class="quiet" aria-pressed=${shown === one} onClick=${() => show(one)}>${one}</button>`,
      )}
      <button class="quiet" onClick=${() => navigator.clipboard?.writeText(text)}>Copy</button>
    </div>
    <pre tabindex="0">${text}</pre>
  </details>`
}
