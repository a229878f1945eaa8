// Adapters: list, upload, aliases, lineage, removal. Saved compositions.
import { json, upload } from "./api.js"
import { fields, isBase, title } from "./compositions.js"
import { size } from "./files.js"
import { html, signal, useState } from "./lib.js"
import { change, Refusal } from "./refusal.js"
import { adapters, base, refresh, saved, setting } from "./store.js"

const FILES = ["adapter_config.json", "adapter_model.safetensors"]

export function Adapters() {
  return html`<div class="adapters">
    <${Upload} />
    <section aria-label="Registered adapters">
      <h2>Registered</h2>
      ${adapters.value.length === 0
        ? html`<p class="muted">None yet.</p>`
        : html`<div class="scroll"><table>
            <thead><tr><th>Adapter</th><th>Aliases</th><th class="number">Rank</th><th class="number">Size</th><th>Registered</th><th>From</th><th></th></tr></thead>
            ${adapters.value.map((one) => html`<${Row} key=${one.id} adapter=${one} />`)}
          </table></div>`}
    </section>
    <${Saved} />
  </div>`
}

const opened = signal(null)
const rowError = signal({})
const changeRow = (id, action) => change((error) => (rowError.value = { ...rowError.value, [id]: error }), action)

function Row({ adapter }) {
  const { id, name, version, aliases, rank, bytes, created_at, source, warnings, served } = adapter
  const isOpen = opened.value === id
  const error = rowError.value[id]
  const dropAlias = (alias) => changeRow(id, () => json("DELETE", `v1/adapters/${path(name)}/aliases/${encodeURIComponent(alias)}`))
  return html`<tbody>
    <tr>
      <td><code>${id}</code>${!served && html` <span class="badge warn">other base</span>`}</td>
      <td>${aliases.map(
        (alias) => html`<span class="alias" key=${alias}>${alias}<button class="quiet" aria-label=${`Remove the alias ${alias} of ${name}`} onClick=${() => dropAlias(alias)}>×</button></span>`,
      )}</td>
      <td class="number">${rank}</td>
      <td class="number">${size(bytes)}</td>
      <td>${new Date(created_at * 1000).toLocaleString()}</td>
      <td class="source">${source}</td>
      <td class="actions"><button class="quiet" aria-expanded=${isOpen} aria-label=${`Details of ${id}`} onClick=${() => (opened.value = isOpen ? null : id)}>${isOpen ? "Close" : "Details"}</button></td>
    </tr>
    ${(isOpen || error) &&
    html`<tr class="details"><td colspan="7">
      <${Refusal} error=${error} />
      ${isOpen && html`<${Details} adapter=${adapter} />`}
      ${isOpen && warnings.map((text) => html`<p class="muted" key=${text}>${text}</p>`)}
    </td></tr>`}
  </tbody>`
}

function Details({ adapter: { id, name, version, digest, lineage, parameters } }) {
  const setAlias = (event) => {
    event.preventDefault()
    const alias = event.target.querySelector("input").value.trim()
    changeRow(id, () => json("PUT", `v1/adapters/${path(name)}/aliases/${encodeURIComponent(alias)}`, { body: { version } }))
  }
  const [isSure, ask] = useState(false)
  const remove = () => (isSure ? changeRow(id, () => json("DELETE", `v1/adapters/${path(id)}`)) : ask(true))
  return html`<dl class="facts">
      <div><dt>Parameters</dt><dd>${parameters.toLocaleString()}</dd></div>
      <div class="wide"><dt>Digest</dt><dd><code>${digest}</code></dd></div>
    </dl>
    <h4>Lineage</h4>
    ${Object.keys(lineage).length ? html`<pre tabindex="0">${JSON.stringify(lineage, null, 2)}</pre>` : html`<p class="muted">The upload had no lineage.</p>`}
    <div class="row">
      <form class="row" onSubmit=${setAlias}><input aria-label=${`New alias of ${id}`} placeholder="prod" required /><button type="submit">Set alias</button></form>
      <button class="danger" onClick=${remove}>${isSure ? `Yes, remove ${id}` : `Remove ${id}`}</button>
      ${isSure && html`<span class="muted">Requests in flight finish.</span> <button class="quiet" onClick=${() => ask(false)}>Keep it</button>`}
    </div>`
}

const path = (name) => name.split("/").map(encodeURIComponent).join("/")

// The upload: {name, alias, files, progress, done, error}
const offer = signal({ name: "", alias: "", files: [], progress: null, done: "", error: null })
const isOver = signal(false)
const patch = (more) => (offer.value = { ...offer.value, ...more })
const take = (list) => {
  const given = [...list]
  const kept = offer.value.files.filter((file) => !given.some(({ name }) => name === file.name))
  patch({ files: [...kept, ...given], done: "", error: null })
}

function Upload() {
  const { name, alias, files, progress, done, error } = offer.value
  const missing = FILES.filter((one) => !files.some((file) => file.name === one))
  const others = files.filter((file) => !FILES.includes(file.name))
  const onDrop = (event) => {
    event.preventDefault()
    isOver.value = false
    take(event.dataTransfer.files)
  }
  return html`<section aria-label="Upload an adapter">
    <h2>Upload</h2>
    <form class="upload" onSubmit=${submit}>
      <label class=${isOver.value ? "drop over" : "drop"} onDragOver=${(event) => (event.preventDefault(), (isOver.value = true))} onDragLeave=${() => (isOver.value = false)} onDrop=${onDrop}>
        <span>Drop <code>adapter_config.json</code> and <code>adapter_model.safetensors</code> here, or choose them.</span>
        <span class="button">Choose files</span>
        <input id="files" class="hidden" type="file" multiple accept=".json,.safetensors" onChange=${(event) => (take(event.target.files), (event.target.value = ""))} />
        ${files.map((file) => html`<span class="file" key=${file.name}>${file.name} <span class="muted">${size(file.size)}</span></span>`)}
      </label>
      <div class="row">
        <label for="upload-name">Name</label>
        <input id="upload-name" value=${name} required spellcheck="false" onInput=${(event) => patch({ name: event.target.value })} />
        <label for="upload-alias">Alias</label>
        <input id="upload-alias" value=${alias} placeholder="none" spellcheck="false" onInput=${(event) => patch({ alias: event.target.value })} />
        <button class="primary" type="submit" disabled=${!name.trim() || missing.length > 0 || others.length > 0 || progress !== null}>Upload</button>
        ${files.length > 0 && html`<button type="button" class="quiet" onClick=${() => patch({ files: [], error: null })}>Clear</button>`}
      </div>
      ${others.length > 0 && html`<p class="error">Only the two files of a PEFT adapter: not ${others.map((file) => file.name).join(", ")}.</p>`}
      ${files.length > 0 && missing.length > 0 && html`<p class="muted">Missing: ${missing.join(", ")}</p>`}
      ${progress !== null && html`<progress aria-label="Upload" value=${progress} max="1">${Math.round(progress * 100)} %</progress>`}
      <${Refusal} error=${error} />
      ${done && html`<p role="status" class="done">${done}</p>`}
    </form>
  </section>`
}

async function submit(event) {
  event.preventDefault()
  const { name, alias, files } = offer.value
  const form = new FormData()
  form.append("name", name.trim())
  if (alias.trim()) form.append("alias", alias.trim())
  for (const file of files) form.append(file.name, file)
  patch({ progress: 0, error: null, done: "" })
  try {
    const { created, adapter } = await upload("v1/adapters", form, (progress) => patch({ progress }))
    patch({ name: "", alias: "", files: [], progress: null, done: created ? `Registered ${adapter.id}.` : `These files are ${adapter.id} already.` })
    await refresh()
  } catch (error) {
    patch({ progress: null, error })
  }
}

const savedName = signal("")
const savedError = signal(null)
const changeSaved = (action) => change((error) => (savedError.value = error), action)

function Saved() {
  const submit = (event) => {
    event.preventDefault()
    const body = { name: savedName.value.trim(), ...fields(setting.value, base.value) }
    changeSaved(async () => (await json("POST", "v1/compositions", { body }), (savedName.value = "")))
  }
  const remove = (name) => changeSaved(() => json("DELETE", `v1/compositions/${path(name)}`))
  return html`<section aria-label="Saved compositions">
    <h2>Saved compositions</h2>
    <form class="row" onSubmit=${submit}>
      <span>Save <code>${title(setting.value, base.value)}</code> as</span>
      <input aria-label="Name of the composition" value=${savedName} required spellcheck="false" onInput=${(event) => (savedName.value = event.target.value)} />
      <button type="submit" disabled=${isBase(setting.value) || !savedName.value.trim()}>Save</button>
    </form>
    ${isBase(setting.value) && html`<p class="muted">Move a slider under <a href="#ask">Ask</a> first.</p>`}
    <${Refusal} error=${savedError.value} />
    ${saved.value.length > 0 &&
    html`<div class="scroll"><table>
      <thead><tr><th>Name</th><th>Stands for</th><th>Now</th><th></th></tr></thead>
      <tbody>${saved.value.map(
        ({ name, model, resolved }) => html`<tr key=${name}>
          <td><code>${name}</code></td><td><code>${model}</code></td><td><code>${resolved ?? "not served"}</code></td>
          <td class="actions"><button class="quiet" aria-label=${`Delete the composition ${name}`} onClick=${() => remove(name)}>Delete</button></td>
        </tr>`,
      )}</tbody>
    </table></div>`}
  </section>`
}
