// The sliders, the method and the sampling: everything that makes the setting of the live column.
import { ABOUT, METHODS } from "./compositions.js"
import { html, signal } from "./lib.js"
import { system } from "./conversation.js"
import { adapters, form, method, options, referenceOf, references, sampling, served, setWeight, weightOf, weights } from "./store.js"

const LOW = -1
const HIGH = 2
// Where a weight is on its slider, from 0 to 1.
const part = (weight) => ((Math.min(HIGH, Math.max(LOW, weight)) - LOW) / (HIGH - LOW)).toFixed(4)
const MANY = 8
const SHOWN = 30
const filter = signal("")

export function Controls() {
  const found = served.value.filter(({ name }) => name.includes(filter.value) || weightOf(name))
  return html`<section class="controls" aria-label="Setting">
    <div class="head">
      <h2>Adapters</h2>
      <button class="quiet" onClick=${() => (weights.value = {})} disabled=${!Object.values(weights.value).some(Boolean)}>
        All to 0
      </button>
    </div>
    ${served.value.length > MANY &&
    html`<input type="search" aria-label="Filter adapters" placeholder="Filter" value=${filter} onInput=${(event) => (filter.value = event.target.value)} />`}
    ${served.value.length === 0 && html`<p class="muted">No adapter is registered. Add one under <a href="#adapters">Adapters</a>.</p>`}
    ${found.slice(0, SHOWN).map((one) => html`<${Weight} key=${one.name} adapter=${one} />`)}
    ${found.length > SHOWN && html`<p class="muted">${found.length - SHOWN} more. Filter by name to see them.</p>`}
    <${Method} />
    <${Sampling} />
  </section>`
}

function Weight({ adapter: { name } }) {
  const weight = weightOf(name)
  const versions = adapters.value.filter((one) => one.name === name)
  const set = (event) => {
    const typed = event.target.valueAsNumber
    if (Number.isFinite(typed)) setWeight(name, typed)
  }
  return html`<div class=${weight ? "weight used" : "weight"}>
    <label for=${`weight-${name}`}>${name}</label>
    ${versions.length > 1 || versions.some(({ aliases }) => aliases.length)
      ? html`<${Reference} name=${name} versions=${versions} />`
      : html`<span class="muted">v${versions[0].version}</span>`}
    <input type="number" step="0.05" aria-label=${`Weight of ${name}, typed`} value=${weight} onChange=${set} />
    <input
      id=${`weight-${name}`}
      type="range"
      min=${LOW}
      max=${HIGH}
      step="0.05"
      value=${weight}
      style=${{ "--from": part(Math.min(0, weight)), "--to": part(Math.max(0, weight)) }}
      aria-valuetext=${weight ? String(weight) : "0, left out"}
      onInput=${set}
    />
  </div>`
}

function Reference({ name, versions }) {
  const aliases = versions.flatMap((one) => one.aliases)
  return html`<select aria-label=${`Version of ${name}`} value=${referenceOf(name)} onChange=${(event) =>
    (references.value = { ...references.value, [name]: event.target.value })}>
    <option value="">newest</option>
    ${versions.map(({ version }) => html`<option key=${version} value=${version}>v${version}</option>`)}
    ${aliases.map((alias) => html`<option key=${alias} value=${alias}>${alias}</option>`)}
  </select>`
}

const OPTIONS = {
  rank: { label: "Rank", min: 1, step: 1, placeholder: "chosen by the method" },
  density: { label: "Density", min: 0.05, max: 1, step: 0.05 },
  seed: { label: "Seed", min: 0, step: 1 },
}

function Method() {
  const set = (name, value) => (options.value = { ...options.value, [name]: value })
  return html`<div class="group">
    <h2>Method</h2>
    <div class="row">
      <label for="method">Combine by</label>
      <select id="method" value=${method} onChange=${(event) => (method.value = event.target.value)}>
        ${Object.keys(METHODS).map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </select>
    </div>
    <p class="muted">${ABOUT[method.value]}</p>
    ${METHODS[method.value].map((name) => {
      if (name === "majority_sign_method") return html`<${Signs} key=${name} set=${set} />`
      const { label, ...limits } = OPTIONS[name]
      return html`<div class="row" key=${name}>
        <label for=${`option-${name}`}>${label}</label>
        <input id=${`option-${name}`} type="number" ...${limits} value=${options.value[name]} onChange=${(event) => set(name, event.target.value === "" ? "" : event.target.valueAsNumber)} />
      </div>`
    })}
  </div>`
}

function Signs({ set }) {
  return html`<div class="row">
    <label for="option-signs">Signs by</label>
    <select id="option-signs" value=${options.value.majority_sign_method} onChange=${(event) => set("majority_sign_method", event.target.value)}>
      <option value="total">total</option>
      <option value="frequency">frequency</option>
    </select>
  </div>`
}

function Sampling() {
  const set = (name) => (event) => {
    const value = event.target.valueAsNumber
    if (Number.isFinite(value)) sampling.value = { ...sampling.value, [name]: value }
  }
  return html`<details class="group">
    <summary>Sampling and system message</summary>
    <div class="row">
      <label for="form">Send the prompt as</label>
      <select id="form" value=${form} onChange=${(event) => (form.value = event.target.value)}>
        <option value="chat">chat</option>
        <option value="text">text to continue</option>
      </select>
    </div>
    <div class="row">
      <label for="max-tokens">Longest answer (tokens)</label>
      <input id="max-tokens" type="number" min="1" step="1" value=${sampling.value.max_tokens} onChange=${set("max_tokens")} />
    </div>
    <div class="row">
      <label for="temperature">Temperature</label>
      <input id="temperature" type="number" min="0" max="2" step="0.1" value=${sampling.value.temperature} onChange=${set("temperature")} />
    </div>
    <label for="system">System message</label>
    <textarea id="system" rows="2" value=${system} onChange=${(event) => (system.value = event.target.value)}></textarea>
  </details>`
}
