// What the server holds now: fusion, residency, and charts of its figures.
import uPlot from "../vendor/uplot.mjs"
import { ApiError, call, json, key } from "./api.js"
import { Benchmark, watchRuns } from "./benchmark.js"
import { fields, isBase, title } from "./compositions.js"
import { size } from "./files.js"
import { html, signal, useEffect, useRef } from "./lib.js"
import { figures, sums } from "./metrics.js"
import { Hidden, Refusal } from "./refusal.js"
import { isDark } from "./theme.js"
import { base, fusion, fusionState, residency, setting, watch, watchFusion } from "./store.js"

const POLL_MS = 1000
const SHOWN_SECONDS = 120

// Columns of the charts: seconds since 1970, then one list for each figure.
const series = signal([[], [], [], []])
const chartError = signal(null)
let before = null

export function Server() {
  useEffect(poll, [key.value])
  return html`<div class="server">
    <${Fusion} />
    <${Residency} />
    <${Benchmark} />
    <section aria-label="Charts" class="charts">
      <h2>Last two minutes</h2>
      ${chartError.value ? html`<${Hidden} error=${chartError.value} what="the metrics" />` : CHARTS.map((one) => html`<${Chart} key=${one.title + isDark.value} ...${one} />`)}
    </section>
  </div>`
}

function poll() {
  let timer = 0
  let isOver = false
  async function look() {
    if (!document.hidden) await Promise.all([watchFusion(), watch("v1/residency", residency), watchRuns(), readMetrics()])
    if (!isOver) timer = setTimeout(look, POLL_MS)
  }
  chartError.value = null
  look()
  return () => {
    isOver = true
    clearTimeout(timer)
  }
}

async function readMetrics() {
  if (chartError.value instanceof ApiError && chartError.value.status) return
  try {
    const reply = await call("GET", "metrics")
    const now = { at: Date.now() / 1000, sums: sums(await reply.text()) }
    if (before && now.at > before.at) append(now.at, figures(now.sums, before.sums, now.at - before.at))
    before = now
    chartError.value = null
  } catch (error) {
    chartError.value = error
  }
}

function append(at, { tokens, ttft, waiting }) {
  const more = [at, tokens, ttft, waiting]
  const first = series.value[0].findIndex((time) => time > at - SHOWN_SECONDS)
  series.value = series.value.map((column, index) => [...(first < 0 ? [] : column.slice(first)), more[index]])
}

const CHARTS = [
  { title: "Tokens per second", index: 1, digits: 0, unit: "tokens/s" },
  { title: "Mean time to first token", index: 2, digits: 0, unit: "ms" },
  { title: "Waiting requests", index: 3, digits: 0, unit: "" },
]

function Chart({ title: name, index, digits, unit }) {
  const place = useRef(null)
  const chart = useRef(null)
  const times = series.value[0]
  const data = [times.map((time) => time - times.at(-1)), series.value[index]]
  useEffect(() => {
    const element = place.current
    const style = getComputedStyle(element)
    const axis = { stroke: style.color, grid: { stroke: style.borderTopColor, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" }
    const options = {
      width: element.clientWidth,
      height: 150,
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: [-SHOWN_SECONDS, 0] }, y: { range: (_, low, high) => [0, Math.max(1, (high ?? 1) * 1.1)] } },
      axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => (tick ? `−${-tick} s` : "now")) }, { ...axis, size: 46 }],
      series: [{}, { stroke: style.accentColor, width: 2, points: { show: index === 2, size: 5, fill: style.accentColor }, spanGaps: index === 2 }],
    }
    chart.current = new uPlot(options, data, element)
    const watcher = new ResizeObserver(() => chart.current.setSize({ width: element.clientWidth, height: 150 }))
    watcher.observe(element)
    return () => (watcher.disconnect(), chart.current.destroy())
  }, [])
  useEffect(() => chart.current.setData(data), [series.value])
  const known = data[1].filter((value) => value !== null)
  const latest = known.length ? `${known.at(-1).toFixed(digits)} ${unit}` : "no request yet"
  return html`<figure>
    <figcaption>${name} <strong>${latest}</strong></figcaption>
    <div class="chart" ref=${place} role="img" aria-label=${`${name}: ${latest}`}></div>
  </figure>`
}

const fusing = signal({ busy: false, error: null })

async function change(action) {
  fusing.value = { busy: true, error: null }
  try {
    fusion.value = await action()
    fusing.value = { busy: false, error: null }
  } catch (error) {
    fusing.value = { busy: false, error }
  }
  watchFusion()
}

function Fusion() {
  const state = fusionState()
  if (!state) return html`<section aria-label="Fusion"><h2>Fusion</h2><${Hidden} error=${fusion.value} what="what is fused" /></section>`
  const { busy, error } = fusing.value
  const name = title(setting.value, base.value)
  const isSwitching = busy || state.state === "fusing" || state.state === "restoring"
  const last = state.last_switch
  return html`<section aria-label="Fusion">
    <h2>Fusion</h2>
    <p role="status"><span class=${`badge ${state.state}`}>${state.state}</span> ${state.model ? html`<code>${state.model}</code> is in the base weights: it costs nothing at inference.` : "The base weights hold no adapter."}</p>
    ${isSwitching && html`<progress aria-label="Switch" value=${state.progress ?? undefined} max="1"></progress>`}
    <div class="row">
      <button class="primary" disabled=${isSwitching || isBase(setting.value)} onClick=${() => change(() => json("PUT", "v1/fusion", { body: fields(setting.value, base.value) }))}>
        Fuse ${isBase(setting.value) ? "the setting of the sliders" : name}
      </button>
      <button disabled=${isSwitching || state.state !== "fused"} onClick=${() => change(() => json("DELETE", "v1/fusion"))}>Restore the base</button>
    </div>
    <${Refusal} error=${error} />
    ${last && html`<p class="muted">The last switch took ${last.seconds.toFixed(2)} s. Requests stood still for ${last.stalled_seconds.toFixed(2)} s.</p>`}
  </section>`
}

function Residency() {
  const found = residency.value
  if (!found || found instanceof Error) {
    return html`<section aria-label="Residency"><h2>Residency</h2><${Hidden} error=${found} what="what is resident" /></section>`
  }
  const { host, active, queued, runtime_weights } = found
  return html`<section aria-label="Residency">
    <h2>Residency</h2>
    <dl class="facts">
      <div><dt>Host memory</dt><dd>${host.adapters.length} of ${host.capacity}</dd></div>
      <div><dt>Slots in use</dt><dd>${active.compositions.length} of ${active.slots}</dd></div>
      <div><dt>Waiting</dt><dd>${queued}</dd></div>
      <div><dt>New weights</dt><dd>${runtime_weights ? "need no build" : "need a build"}</dd></div>
    </dl>
    <div class="scroll"><table>
      <thead><tr><th>Prepared</th><th>State</th><th class="number">Requests</th><th class="number">Memory</th><th class="number">Prepared in</th></tr></thead>
      <tbody>${host.adapters.map(
        (one) => html`<tr key=${one.id}>
          <td><code>${one.id}</code>${one.pinned && html` <span class="badge">pinned</span>`}</td>
          <td>${one.state}</td><td class="number">${one.requests}</td><td class="number">${size(one.bytes)}</td>
          <td class="number">${one.prepare_seconds === null ? "–" : `${(one.prepare_seconds * 1000).toFixed(0)} ms`}</td>
        </tr>`,
      )}</tbody>
    </table></div>
  </section>`
}
