// Asks for answers, and compares their tokens with what other settings would have said in the same place.
import { call, events, json } from "./api.js"
import { fields, isBase, title } from "./compositions.js"
import { signal } from "./lib.js"
import { base, form, fusionState, sampling } from "./store.js"

export const TOP = 5
const COMPARED = 2048

export const EMPTY = { status: "idle", tokens: [], text: "", prompt: [], model: "", ttft: null, speed: null, fused: "", error: null, compared: null }

let made = 0
// A column shows the answers of one setting. The live column follows the sliders.
export function column(setting, isLive = false) {
  made += 1
  return { id: `column-${made}`, isLive, setting: signal(setting), answer: signal(EMPTY), controller: null, request: null }
}

// End the request. The column keeps what came.
export function stop(column) {
  column.controller?.abort()
}

// End the request, and show nothing of it.
export function drop(column) {
  stop(column)
  column.controller = null
}

// Ask for an answer. An earlier request of the column is aborted; its late events change nothing.
export async function ask(column, messages) {
  stop(column)
  const controller = new AbortController()
  column.controller = controller
  const setting = column.setting.value
  const isChat = form.value === "chat"
  const asked = isChat ? { messages } : { prompt: messages.at(-1).content }
  column.request = { isChat, ...asked, ...sampling.value }
  const before = column.answer.value
  column.answer.value = { ...EMPTY, status: "waiting", tokens: before.tokens, text: before.text, messages }
  try {
    const path = isChat ? "v1/chat/completions" : "v1/completions"
    const logprobs = isChat ? { logprobs: true, top_logprobs: TOP } : { logprobs: TOP }
    const body = { ...fields(setting, base.value), ...asked, ...sampling.value, ...logprobs, stream: true, return_token_ids: true }
    await stream(column, controller, path, body)
    await compare(column, controller)
  } catch (error) {
    if (column.controller !== controller) return
    const { text, tokens } = column.answer.value
    if (error.name === "AbortError") column.answer.value = { ...column.answer.value, status: "stopped" }
    else column.answer.value = { ...EMPTY, status: "error", error, messages, text, tokens }
  }
}

async function stream(column, controller, path, body) {
  const started = performance.now()
  const reply = await call("POST", path, { body, signal: controller.signal })
  const found = { ...EMPTY, status: "streaming", messages: column.answer.value.messages, model: reply.headers.get("x-lora-composition") ?? "" }
  let first = null
  let last = started
  for await (const event of events(reply)) {
    if (column.controller !== controller) return
    found.model ||= event.model
    const choice = event.choices[0]
    if (!choice) continue
    const prompt = event.prompt_token_ids ?? choice.prompt_token_ids
    if (prompt) found.prompt = prompt
    const added = tokensOf(choice)
    if (added.length) {
      last = performance.now()
      first ??= last
    }
    found.tokens = [...found.tokens, ...added]
    found.text += choice.delta?.content ?? choice.text ?? ""
    found.finish = choice.finish_reason ?? found.finish
    found.ttft = first && first - started
    if (!found.text && !found.tokens.length) continue // the earlier answer stays until the first token
    column.answer.value = { ...found }
  }
  const count = found.tokens.length
  found.speed = count > 1 ? ((count - 1) / (last - first)) * 1000 : null
  column.answer.value = { ...found, status: "done", fused: fusedText(found.model) }
}

function tokensOf(choice) {
  const ids = choice.token_ids ?? []
  if (choice.logprobs?.tokens) return continued(choice.logprobs, ids)
  return (choice.logprobs?.content ?? []).map((one, index) => ({
    id: ids[index],
    text: one.token,
    logprob: one.logprob,
    top: one.top_logprobs.map(({ token, logprob }) => ({ token, logprob })),
  }))
}

// The same from the shape of /v1/completions.
const continued = ({ tokens, token_logprobs, top_logprobs }, ids) =>
  tokens.map((text, index) => ({ id: ids[index], text, logprob: token_logprobs[index], top: likeliestOf(top_logprobs[index]) }))

const likeliestOf = (found) =>
  Object.entries(found)
    .map(([token, logprob]) => ({ token, logprob }))
    .sort((one, other) => other.logprob - one.logprob)
    .slice(0, TOP)

// Whether the answer came from fused weights, as far as this key may see.
function fusedText(model) {
  const state = fusionState()
  if (!state) return ""
  if (state.state !== "fused") return "not fused"
  return state.model === model ? "fused into the base weights" : `as the difference to ${state.model}, which is fused`
}

// The log-probabilities that a setting gives to `answer`, a list of token ids, after `prompt`.
export async function scores(setting, prompt, answer, { top = 0, signal } = {}) {
  const body = {
    ...fields(setting, base.value),
    prompt: [...prompt, ...answer],
    max_tokens: 1,
    temperature: 0,
    prompt_logprobs: top,
  }
  const reply = await json("POST", "v1/completions", { body, signal })
  const found = reply.choices[0].prompt_logprobs.slice(prompt.length, prompt.length + answer.length)
  return found.map((entries, index) => ({
    logprob: entries[answer[index]].logprob,
    top: Object.values(entries)
      .filter(({ rank }) => rank <= top)
      .sort((one, other) => one.rank - other.rank)
      .map(({ decoded_token, logprob }) => ({ token: decoded_token, logprob })),
  }))
}

// What the base gives to each token of a finished answer, in the same place.
async function compare(column, controller) {
  const { tokens, prompt } = column.answer.value
  if (isBase(column.setting.value) || !tokens.length || !prompt.length || prompt.length + tokens.length > COMPARED) return
  if (tokens.some(({ id }) => id === undefined)) return
  const ids = tokens.map(({ id }) => id)
  let compared
  try {
    compared = await scores(BASE, prompt, ids, { top: TOP, signal: controller.signal })
  } catch (error) {
    if (error.name === "AbortError") throw error
    compared = error
  }
  if (column.controller === controller) column.answer.value = { ...column.answer.value, compared }
}

export const BASE = { members: [], method: "stack", options: {} }

// The likeliest tokens that a setting sees at a place of another column's answer. Results are kept.
const known = new Map()
export async function likeliest(setting, prompt, before) {
  const name = JSON.stringify([fields(setting, base.value), prompt, before])
  if (!known.has(name)) {
    if (known.size > 500) known.clear()
    known.set(name, askLikeliest(setting, [...prompt, ...before]).catch((error) => (known.delete(name), Promise.reject(error))))
  }
  return known.get(name)
}

async function askLikeliest(setting, prompt) {
  const body = { ...fields(setting, base.value), prompt, max_tokens: 1, temperature: 0, logprobs: TOP }
  const reply = await json("POST", "v1/completions", { body })
  return likeliestOf(reply.choices[0].logprobs.top_logprobs[0])
}

export const label = (column) => column.answer.value.model || title(column.setting.value, base.value)
