// The conversation that all columns share, and the columns.
import { ask, BASE, column, drop, EMPTY, stop } from "./answers.js"
import { kind } from "./compositions.js"
import { computed, effect, signal } from "./lib.js"
import { form, fusionState, references, setting, weights, method, options } from "./store.js"

export const MAX_COLUMNS = 4
// A merge is built for each setting, so it waits until the slider rests.
const MERGE_REST_MS = 400

export const system = signal("")
export const history = signal([])
export const question = signal("")
export const live = column(setting.peek(), true)
export const columns = signal([live])

export const messages = computed(() => [
  ...(system.value ? [{ role: "system", content: system.value }] : []),
  ...history.value,
  { role: "user", content: question.value },
])

export function send(text) {
  const answered = live.answer.value.text
  if (form.value === "text") history.value = []
  else if (question.value && answered) {
    history.value = [
      ...history.value,
      { role: "user", content: question.value },
      { role: "assistant", content: answered },
    ]
  }
  question.value = text
  askAll()
}

export function askAll() {
  for (const one of columns.value) ask(one, messages.value)
}

export function stopAll() {
  columns.value.forEach(stop)
}

export function restart() {
  columns.value.forEach(drop)
  history.value = []
  question.value = ""
  for (const one of columns.value) one.answer.value = EMPTY
}

export function add(newSetting) {
  if (columns.value.length >= MAX_COLUMNS) return
  const added = column(newSetting)
  columns.value = [...columns.value, added]
  if (question.value) ask(added, messages.value)
}

export const pin = () => add(setting.value)
export const addBase = () => add(BASE)
export const addFused = () => add({ model: fusionState().model, members: [] })

export function remove(one) {
  drop(one)
  columns.value = columns.value.filter((other) => other !== one)
}

// Move the sliders to a pinned setting.
export function load({ members, method: name, options: given }) {
  weights.value = Object.fromEntries(members.map((member) => [member.name.split("@")[0], member.weight]))
  references.value = Object.fromEntries(members.map((member) => member.name.split("@")))
  method.value = name
  options.value = { ...options.value, ...given }
}

let timer = 0
let frame = 0
function askLiveSoon() {
  clearTimeout(timer)
  cancelAnimationFrame(frame)
  const now = () => ask(live, messages.value)
  if (kind(live.setting.value) === "merge") timer = setTimeout(now, MERGE_REST_MS)
  else frame = requestAnimationFrame(now)
}

// What is asked for now, as text: the catalogue is read again now and then, which is no reason to ask again.
let asked = JSON.stringify(setting.peek())
effect(() => {
  const text = JSON.stringify(setting.value)
  if (text === asked) return
  asked = text
  live.setting.value = setting.value
  if (question.peek()) askLiveSoon()
})
