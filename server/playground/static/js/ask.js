// The view on which a person asks, moves sliders and compares columns.
import { Column } from "./columns.js"
import { Controls } from "./controls.js"
import { add, addBase, addFused, askAll, columns, history, MAX_COLUMNS, question, restart, send, stopAll } from "./conversation.js"
import { html, signal } from "./lib.js"
import { fusionState, isLoaded, saved } from "./store.js"
import { Inspector } from "./tokens.js"
import { Vote } from "./vote.js"

const draft = signal("")

export function Ask() {
  return html`<div class="ask">
    <${Controls} />
    <div class="main">
      <${Turns} />
      <${Composer} />
      <${More} />
      <div class="columns" style=${{ "--columns": columns.value.length }}>
        ${columns.value.map((one) => html`<${Column} key=${one.id} column=${one} />`)}
      </div>
      <p class="legend muted">
        <span class="token likelier" style=${{ "--change": 1 }}>likelier</span>${" and "}<span class="token less-likely" style=${{ "--change": 1 }}>less likely</span>${" "}than under the base. The full colour means 100 times.
      </p>
      <${Inspector} />
      <${Vote} />
    </div>
  </div>`
}

function Turns() {
  if (!history.value.length) return null
  return html`<ol class="turns" aria-label="Conversation">
    ${history.value.map(({ role, content }, index) => html`<li key=${index} class=${role}><span class="role">${role}</span>${content}</li>`)}
  </ol>`
}

function Composer() {
  const isBusy = columns.value.some(({ answer }) => ["waiting", "streaming"].includes(answer.value.status))
  const submit = (event) => {
    event.preventDefault()
    const text = draft.value.trim()
    if (!text || !isLoaded.value) return
    draft.value = ""
    send(text)
  }
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event)
    if (event.key === "Escape") stopAll()
  }
  return html`<form class="composer" onSubmit=${submit}>
    ${question.value && html`<p class="question"><span class="role">user</span>${question.value}</p>`}
    <textarea
      id="prompt"
      rows="2"
      aria-label="Prompt"
      placeholder=${question.value ? "Continue the conversation" : "Ask something, then move the sliders"}
      value=${draft}
      onInput=${(event) => (draft.value = event.target.value)}
      onKeyDown=${onKeyDown}
    ></textarea>
    <div class="row">
      <button class="primary" type="submit" disabled=${!draft.value.trim() || !isLoaded.value}>Ask</button>
      <button type="button" disabled=${!question.value || !isLoaded.value} onClick=${askAll}>Ask again</button>
      <button type="button" disabled=${!isBusy} onClick=${stopAll}>Stop</button>
      <button type="button" class="quiet" disabled=${!question.value} onClick=${restart}>New conversation</button>
    </div>
  </form>`
}

function More() {
  const isFull = columns.value.length >= MAX_COLUMNS
  const fused = fusionState()?.model
  return html`<div class="row more" role="group" aria-label="Compare with">
    <span class="muted">Compare with</span>
    <button disabled=${isFull} onClick=${addBase}>Base</button>
    ${fused && html`<button disabled=${isFull} onClick=${addFused}>Fused</button>`}
    ${saved.value.length > 0 &&
    html`<select aria-label="Compare with a saved composition" disabled=${isFull} value="" onChange=${(event) => {
      add({ model: event.target.value, members: [] })
      event.target.value = ""
    }}>
      <option value="">Saved…</option>
      ${saved.value.map(({ name }) => html`<option key=${name} value=${name}>${name}</option>`)}
    </select>`}
    <span class="muted">or pin the setting of the sliders.</span>
  </div>`
}
