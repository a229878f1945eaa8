// Two adapters, five weights each: 25 settings as a heat map of one figure. A click moves the sliders there.
import { scores } from "./answers.js"
import { json } from "./api.js"
import { fields } from "./compositions.js"
import { live, load, messages, question } from "./conversation.js"
import { html, signal } from "./lib.js"
import { base, form, sampling, served, setting } from "./store.js"

const FIGURES = {
  answer: "Log-probability of an answer",
  own: "Mean log-probability of its own tokens",
}
const AT_ONCE = 4
const SIDE = 5

const range = signal({ from: 0, to: 2 })
const axes = signal({ x: "", y: "" })
const figure = signal("answer")
const wanted = signal("")
// {cells: {"x,y": {value, text} | Error}, x, y, weights, figure}
const map = signal(null)
const running = signal(null)

const shown = (value) => value.toFixed(2).replace("-", "−")

const weightsOf = ({ from, to }) => Array.from({ length: SIDE }, (_, index) => Number((from + ((to - from) * index) / (SIDE - 1)).toFixed(3)))

export function Grid() {
  const used = setting.value.members.map(({ name }) => name.split("@")[0])
  const names = [...new Set([...used, ...served.value.map(({ name }) => name)])]
  const x = axes.value.x || names[0]
  const y = axes.value.y || names.find((name) => name !== x)
  if (names.length < 2) return html`<p class="muted">The heat map needs two adapters.</p>`
  const answer = wanted.value || live.answer.value.text
  const isReady = question.value && x !== y && range.value.from < range.value.to && (figure.value !== "answer" || answer)
  const start = () => run(x, y, answer)
  return html`<div class="grid-view">
    <section class="controls" aria-label="Heat map">
      <h2>Heat map</h2>
      <p class="muted">Asks “${question.value || "…"}” with 25 settings. ${question.value ? "" : html`Ask something under <a href="#ask">Ask</a> first.`}</p>
      <${Axis} id="x" text="Across" names=${names} value=${x} />
      <${Axis} id="y" text="Down" names=${names} value=${y} />
      <div class="row">
        <label for="from">Weights from</label>
        <input id="from" type="number" step="0.25" value=${range.value.from} onChange=${(event) => (range.value = { ...range.value, from: event.target.valueAsNumber })} />
        <label for="to">to</label>
        <input id="to" type="number" step="0.25" value=${range.value.to} onChange=${(event) => (range.value = { ...range.value, to: event.target.valueAsNumber })} />
      </div>
      <label for="figure">Figure</label>
      <select id="figure" value=${figure} onChange=${(event) => (figure.value = event.target.value)}>
        ${Object.entries(FIGURES).map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}
      </select>
      ${figure.value === "answer" &&
      html`<label for="wanted">Answer</label>
        <textarea id="wanted" rows="2" placeholder=${live.answer.value.text || "the answer that you want"} value=${wanted} onInput=${(event) => (wanted.value = event.target.value)}></textarea>`}
      <div class="row">
        <button class="primary" disabled=${!isReady || running.value} onClick=${start}>Compute</button>
        <button disabled=${!running.value} onClick=${() => running.value?.abort()}>Stop</button>
      </div>
    </section>
    <${HeatMap} />
  </div>`
}

function Axis({ id, text, names, value }) {
  return html`<div class="row">
    <label for=${`axis-${id}`}>${text}</label>
    <select id=${`axis-${id}`} value=${value} onChange=${(event) => (axes.value = { ...axes.value, [id]: event.target.value })}>
      ${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
    </select>
  </div>`
}

function HeatMap() {
  if (!map.value) return html`<p class="muted">Each cell shows the figure for one pair of weights.</p>`
  const { cells, x, y, weights } = map.value
  const values = Object.values(cells).map(({ value }) => value).filter(Number.isFinite)
  const [low, high] = [Math.min(...values), Math.max(...values)]
  const best = values.length === SIDE * SIDE && high > low ? high : null
  const cell = (across, down) => {
    const found = cells[`${across},${down}`]
    if (!found) return html`<td class="cell">…</td>`
    if (found instanceof Error) return html`<td class="cell error" title=${found.message}>${found.code}</td>`
    const share = high > low ? (found.value - low) / (high - low) : 1
    return html`<td class=${`cell ${found.value === best ? "best" : ""} ${share > 0.6 ? "high" : ""}`} style=${{ "--share": share.toFixed(3) }}>
      <button title=${found.text} aria-label=${`${x} ${across}, ${y} ${down}: ${shown(found.value)}. Move the sliders here.`} onClick=${() => use(x, y, across, down)}>
        ${shown(found.value)}${found.text !== undefined && html`<small>${found.text.slice(0, 24)}</small>`}
      </button>
    </td>`
  }
  return html`<section class="map" aria-label="Heat map of the weights">
    <h2>${FIGURES[map.value.figure]}</h2>
    <p class="muted">${map.value.figure === "answer" ? `Answer: “${map.value.answer}”. ` : ""}Natural logarithm; 0 is certain. Method: ${map.value.method}. Click a cell to move the sliders to it.</p>
    <div class="scroll"><table class="heat">
      <thead><tr><th class="corner" rowspan="2"><code>${y}</code> ↓</th><th colspan=${SIDE} scope="colgroup"><code>${x}</code> →</th></tr>
        <tr>${weights.map((weight) => html`<th key=${weight} scope="col">${weight}</th>`)}</tr></thead>
      <tbody>${weights.map((down) => html`<tr key=${down}><th scope="row">${down}</th>${weights.map((across) => cell(across, down))}</tr>`)}</tbody>
    </table></div>
  </section>`
}

const settingOf = (x, y, across, down) => ({
  ...setting.value,
  members: [
    ...setting.value.members.filter(({ name }) => ![x, y].includes(name.split("@")[0])),
    { name: x, weight: across },
    { name: y, weight: down },
  ].filter(({ weight }) => weight !== 0),
})

function use(x, y, across, down) {
  load(settingOf(x, y, across, down))
  location.hash = "ask"
}

async function run(x, y, answer) {
  const controller = new AbortController()
  running.value = controller
  const weights = weightsOf(range.value)
  map.value = { cells: {}, x, y, weights, figure: figure.value, answer, method: setting.value.method }
  const left = weights.flatMap((down) => weights.map((across) => [across, down]))
  const one = async () => {
    for (let next = left.shift(); next && !controller.signal.aborted; next = left.shift()) {
      const [across, down] = next
      const found = await measured(settingOf(x, y, across, down), answer, controller.signal).catch((error) => error)
      if (found.name !== "AbortError") map.value = { ...map.value, cells: { ...map.value.cells, [`${across},${down}`]: found } }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, one))
  running.value = null
}

async function measured(which, answer, signal) {
  if (map.value.figure === "answer") return scored(which, answer, signal)
  const isChat = form.value === "chat"
  const asked = isChat ? { messages: messages.value, logprobs: true } : { prompt: question.value, logprobs: 0 }
  const body = { ...fields(which, base.value), ...asked, ...sampling.value }
  const reply = await json("POST", isChat ? "v1/chat/completions" : "v1/completions", { body, signal })
  const [choice] = reply.choices
  const found = isChat ? choice.logprobs.content.map(({ logprob }) => logprob) : choice.logprobs.token_logprobs
  const text = (isChat ? choice.message.content : choice.text) ?? ""
  return { value: found.reduce((sum, one) => sum + one, 0) / Math.max(1, found.length), text }
}

async function scored(which, answer, signal) {
  const tokens = async (body) => (await json("POST", "tokenize", { body: { model: base.value, ...body }, signal })).tokens
  const asked = form.value === "chat" ? { messages: messages.value, add_generation_prompt: true } : { prompt: question.value }
  const ids = await tokens({ prompt: answer, add_special_tokens: false })
  const found = await scores(which, await tokens(asked), ids, { signal })
  return { value: found.reduce((sum, { logprob }) => sum + logprob, 0) }
}
