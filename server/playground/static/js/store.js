// What the page knows: the catalogue that the key sees, the setting of the sliders, the conversation.
import { ApiError, json, key } from "./api.js"
import { METHODS } from "./compositions.js"
import { batch, computed, signal } from "./lib.js"

export const base = signal("")
export const adapters = signal([])
export const saved = signal([])
export const catalogueError = signal(null)
export const isLoaded = signal(false)
// null: not known yet. An ApiError: why the key does not see it.
export const fusion = signal(null)
export const residency = signal(null)
export const benchmarks = signal(null)

export const weights = signal({})
export const references = signal({})
export const method = signal("stack")
export const options = signal({ rank: "", density: 0.5, seed: 0, majority_sign_method: "total" })
// How a prompt is sent: as a chat, or as text that is continued, for a base without a chat template.
export const form = signal("chat")
export const sampling = signal({ max_tokens: 64, temperature: 0 })

// The newest version of each adapter that this base serves.
export const served = computed(() => {
  const newest = new Map()
  for (const one of adapters.value) {
    const known = newest.get(one.name)
    if (one.served && (!known || known.version < one.version)) newest.set(one.name, one)
  }
  return [...newest.values()].sort((one, other) => one.name.localeCompare(other.name))
})

// An adapter may be named like a property that every object has, such as `constructor`.
const own = (table, name, otherwise) => (Object.hasOwn(table, name) ? table[name] : otherwise)
export const weightOf = (name) => own(weights.value, name, 0)
export const referenceOf = (name) => own(references.value, name, "")

export const setting = computed(() => ({
  members: served.value
    .filter(({ name }) => weightOf(name))
    .map(({ name }) => ({
      name: referenceOf(name) ? `${name}@${referenceOf(name)}` : name,
      weight: weightOf(name),
    })),
  method: method.value,
  options: Object.fromEntries(METHODS[method.value].map((name) => [name, options.value[name]])),
}))

export function setWeight(name, weight) {
  weights.value = { ...weights.value, [name]: weight }
}

// Forget what an earlier key saw.
export function forget() {
  batch(() => {
    adapters.value = []
    saved.value = []
    isLoaded.value = false
    catalogueError.value = null
    for (const one of [fusion, residency, benchmarks]) one.value = null
  })
}

// Read the catalogue. A reply for another key than that of now is not used.
export async function refresh() {
  const asked = key.value
  try {
    const [models, listed, compositions] = await Promise.all([
      json("GET", "v1/models"),
      json("GET", "v1/adapters"),
      json("GET", "v1/compositions"),
    ])
    if (key.value !== asked) return
    batch(() => {
      base.value = models.data.find((card) => card.parent === null)?.id ?? ""
      adapters.value = listed.data
      saved.value = compositions.data
      catalogueError.value = null
      isLoaded.value = true
    })
  } catch (error) {
    if (key.value !== asked) return
    batch(() => {
      forget()
      catalogueError.value = error
    })
  }
}

// Read a resource that only some keys may see. After a refusal it is not asked for again with the same key.
const refusedFor = new Map()
export async function watch(path, target) {
  const asked = key.value
  if (refusedFor.get(path) === asked) return
  const found = await json("GET", path).catch((error) => error)
  if (found instanceof ApiError && [401, 403, 404].includes(found.status)) refusedFor.set(path, asked)
  if (key.value === asked) target.value = found
}

export const watchFusion = () => watch("v1/fusion", fusion)

export function fusionState() {
  const found = fusion.value
  return found && !(found instanceof Error) ? found : null
}
