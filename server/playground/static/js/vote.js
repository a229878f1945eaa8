// A vote on two columns becomes a preference pair. The pairs leave the page only as a download.
import { label } from "./answers.js"
import { columns } from "./conversation.js"
import { save } from "./files.js"
import { html, signal } from "./lib.js"

const VOTES = { left: "Left is better", right: "Right is better", tie: "Tie", bad: "Both are bad" }
const chosen = signal({})
// Each vote: {kind, pair}. Only left and right have a pair.
const votes = signal([])
const said = signal("")

const pairs = () => votes.value.filter(({ pair }) => pair).map(({ pair }) => pair)

export function Vote() {
  if (columns.value.length < 2) return null
  const [left, right] = picked()
  const answers = [left, right].map((one) => one.answer.value)
  const isReady = left !== right && answers.every(({ status, text }) => status === "done" && text.trim())
  const isSame = isReady && answers[0].text === answers[1].text
  const count = pairs().length
  return html`<section class="vote" aria-label="Vote">
    <${Pick} side="left" column=${left} />
    <div class="buttons" role="group" aria-label="Which answer is better?">
      ${Object.entries(VOTES).map(
        ([kind, text]) => html`<button key=${kind} disabled=${!isReady || (isSame && (kind === "left" || kind === "right"))} onClick=${() => vote(kind, left, right)}>${text}</button>`,
      )}
    </div>
    <${Pick} side="right" column=${right} />
    <p class="muted" role="status">${said.value || (isSame ? "Both answers are the same." : "A vote for one side becomes a preference pair for lora-compose train dpo.")}</p>
    <button class="quiet" disabled=${!count} onClick=${download}>Download ${count} ${count === 1 ? "pair" : "pairs"} (JSONL)</button>
  </section>`
}

function Pick({ side, column }) {
  return html`<label class="pick">${side === "left" ? "Left" : "Right"}
    <select value=${column.id} onChange=${(event) => (chosen.value = { ...chosen.value, [side]: event.target.value })}>
      ${columns.value.map((one) => html`<option key=${one.id} value=${one.id}>${label(one)}</option>`)}
    </select>
  </label>`
}

function picked() {
  const at = (side, place) => columns.value.find(({ id }) => id === chosen.value[side]) ?? columns.value[place]
  return [at("left", 0), at("right", 1)]
}

// What a column was asked: a prompt in one of the two shapes that training reads.
const promptOf = ({ request: { messages, prompt } }) => messages ?? prompt

function vote(kind, left, right) {
  const isPair = (kind === "left" || kind === "right") && JSON.stringify(promptOf(left)) === JSON.stringify(promptOf(right))
  const [better, worse] = kind === "left" ? [left, right] : [right, left]
  const answer = ({ request, answer: { value } }) => (request.isChat ? [{ role: "assistant", content: value.text }] : value.text)
  const pair = isPair ? { prompt: promptOf(left), chosen: answer(better), rejected: answer(worse) } : null
  votes.value = [...votes.value, { kind, pair }]
  said.value = pair ? `Kept as pair ${pairs().length}.` : "Counted. A tie or two bad answers make no pair."
}

function download() {
  const lines = pairs().map((pair) => `${JSON.stringify(pair)}\n`)
  save("preferences.jsonl", "application/jsonl", lines)
}
