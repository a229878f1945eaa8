// An answer as tokens. The colour of a token is how much likelier or less likely it is than under the base.
import { html, signal } from "./lib.js"
import { likeliest, label } from "./answers.js"
import { isBase } from "./compositions.js"
import { columns } from "./conversation.js"

// A token that is 100 times likelier, or less likely, has the full colour.
const FULL = Math.log(100)
const HOVER_MS = 60
// {column, index}, and for each column its five likeliest tokens there: a list, an error, or nothing yet.
export const inspected = signal(null)
const candidates = signal({})
let timer = 0

export function Answer({ column }) {
  const answer = column.answer.value
  const { tokens, text, status } = answer
  if (!tokens.length) return html`<p class="text">${text}</p>`
  const end = endOf(tokens, text)
  const focused = inspected.value?.column === column ? inspected.value.index : 0
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
    const next = event.target.dataset.index && event.currentTarget.children[Number(event.target.dataset.index) + step]
    if (step && next) {
      event.preventDefault()
      next.focus()
    }
  }
  const dim = status === "waiting" ? " old" : ""
  return html`<div class=${`text tokens${dim}`} role="group" aria-label="Tokens of the answer. The arrow keys move between them." onKeyDown=${move}>
    ${tokens.map((token, index) => {
      const change = changeOf(answer, index)
      const show = () => inspect(column, index)
      return html`<span
        key=${index}
        role="button"
        data-index=${index}
        tabindex=${index === Math.min(focused, tokens.length - 1) ? 0 : -1}
        class=${classOf(change, column, index)}
        style=${change === null ? {} : { "--change": Math.min(1, Math.abs(change) / FULL).toFixed(3) }}
        aria-label=${`${index === end ? "end of the answer" : token.text}${spoken(change)}`}
        onMouseEnter=${() => {
          clearTimeout(timer)
          timer = setTimeout(show, HOVER_MS)
        }}
        onMouseLeave=${() => clearTimeout(timer)}
        onFocus=${show}
        >${index === end ? html`<small>end</small>` : token.text}</span
      >`
    })}
  </div>`
}

function classOf(change, column, index) {
  const chosen = inspected.value?.column === column && inspected.value.index === index ? " inspected" : ""
  if (change === null) return `token${chosen}`
  return `token ${change >= 0 ? "likelier" : "less-likely"}${chosen}`
}

// The index of a token that ends the answer and is not part of its text, or -1.
function endOf(tokens, text) {
  const last = tokens.length - 1
  const before = tokens.slice(0, last).map((token) => token.text).join("")
  return before === text && tokens[last].text !== "" ? last : -1
}

// ln of how many times likelier the token is than under the base. null: not known.
function changeOf({ compared, tokens }, index) {
  if (!compared || compared instanceof Error) return null
  return tokens[index].logprob - compared[index].logprob
}

function spoken(change) {
  if (change === null) return ""
  return `, ${times(change)} under the base`
}

// "12 times as likely as"
export function times(change) {
  const ratio = Math.exp(Math.abs(change))
  const shown = ratio > 999 ? "more than 999" : ratio.toFixed(ratio < 10 ? 1 : 0)
  if (ratio < 1.05) return "as likely as"
  return `${shown} times ${change > 0 ? "likelier" : "less likely"} than`
}

async function inspect(column, index) {
  const { tokens, prompt, compared } = column.answer.value
  inspected.value = { column, index, token: tokens[index], change: changeOf(column.answer.value, index) }
  const now = inspected.value
  const own = { [column.id]: tokens[index].top }
  candidates.value = own
  const before = tokens.slice(0, index).map(({ id }) => id)
  for (const other of columns.value) {
    if (other === column) continue
    let found
    if (isBase(other.setting.value) && Array.isArray(compared)) found = compared[index].top
    else found = await likeliest(other.setting.value, prompt, before).catch((error) => error)
    if (inspected.value !== now) return
    candidates.value = { ...candidates.value, [other.id]: found }
  }
}

export function Inspector() {
  const shown = inspected.value
  if (!shown || !columns.value.includes(shown.column)) {
    return html`<p class="muted hint">Point at a token, or move to it with the arrow keys, to see the five likeliest tokens in its place.</p>`
  }
  return html`<section class="inspector" aria-label="Likeliest tokens">
    <p>
      In place of <code>${visible(shown.token.text)}</code>, after the same text${shown.change === null
        ? "."
        : html`. It is <strong>${times(shown.change)}</strong> under the base.`}
    </p>
    <div class="candidates">
      ${columns.value.map((one) => html`<${Candidates} key=${one.id} column=${one} token=${shown.token.text} found=${candidates.value[one.id]} />`)}
    </div>
  </section>`
}

function Candidates({ column, token, found }) {
  let body = html`<p class="muted">…</p>`
  if (found instanceof Error) body = html`<p class="error">${found.message}</p>`
  else if (found) {
    body = html`<ol>
      ${found.map(
        (one) => html`<li class=${one.token === token ? "chosen" : ""} style=${{ "--share": Math.exp(one.logprob).toFixed(4) }}>
          <code>${visible(one.token)}</code><span>${percent(one.logprob)}</span>
        </li>`,
      )}
    </ol>`
  }
  return html`<div><h4>${label(column)}</h4>${body}</div>`
}

// A blank or a line break as a sign.
const visible = (token) => token.replaceAll(" ", "␣").replaceAll("\n", "↵") || "(empty)"

function percent(logprob) {
  const share = Math.exp(logprob) * 100
  return share < 0.1 ? "< 0.1 %" : `${share.toFixed(1)} %`
}
