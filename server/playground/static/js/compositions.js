// A setting is what a request asks for: {members: [{name, weight}], method, options} or {model}.
// Without members it is the base.

// The methods and the options that each takes. A test compares this with the server's table.
export const METHODS = {
  stack: [],
  linear: ["rank"],
  svd: ["rank"],
  ties: ["density", "rank", "majority_sign_method"],
  dare_linear: ["density", "rank", "seed"],
  dare_ties: ["density", "rank", "seed", "majority_sign_method"],
  magnitude_prune: ["density", "rank"],
}

export const ABOUT = {
  stack: "Exact sum of the adapters. On a CPU, new weights cost nothing.",
  linear: "Weighted sum as one adapter of a chosen rank. Built for each new setting.",
  svd: "Best approximation of the sum at a chosen rank. Built for each new setting.",
  ties: "Keeps the largest entries and elects a sign for each. Built for each new setting.",
  dare_linear: "Drops entries at random and rescales the rest. Built for each new setting.",
  dare_ties: "DARE's random choice with TIES' signs. Built for each new setting.",
  magnitude_prune: "Keeps the largest entries of each adapter. Built for each new setting.",
}

export const isBase = (setting) => !setting.model && setting.members.length === 0

export function fields(setting, base) {
  if (setting.model) return { model: setting.model }
  if (isBase(setting)) return { model: base }
  const options = Object.fromEntries(
    METHODS[setting.method].filter((name) => setting.options[name] !== "").map((name) => [name, setting.options[name]]),
  )
  const composition = setting.method === "stack" ? {} : { composition: { method: setting.method, ...options } }
  return { adapters: setting.members, ...composition }
}

// How people write the setting. The server answers with the canonical name, which has versions.
export function title(setting, base) {
  if (setting.model) return setting.model
  if (isBase(setting)) return base || "base"
  const sum = setting.members.map(({ name, weight }) => (weight === 1 ? name : `${name}:${weight}`)).join("+")
  return setting.method === "stack" ? sum : `${setting.method}(${sum})`
}

export function kind(setting) {
  if (setting.model) return "named"
  if (isBase(setting)) return "base"
  if (setting.method !== "stack") return "merge"
  return setting.members.length === 1 ? "single" : "stack"
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`

export function curl(url, body, withKey) {
  const lines = [`curl ${url}`, `-H 'content-type: application/json'`, `-d ${quoted(JSON.stringify(body))}`]
  if (withKey) lines.splice(1, 0, `-H "authorization: Bearer $LORA_COMPOSE_API_KEY"`)
  return lines.join(" \\\n  ")
}

export function python(url, body, withKey, isChat) {
  const secret = withKey ? 'os.environ["LORA_COMPOSE_API_KEY"]' : '"unused"'
  const named = Object.entries(body).map(([name, value]) => `    ${name}=${JSON.stringify(value)},`)
  return [
    ...(withKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(url)}, api_key=${secret})`,
    `reply = client.${isChat ? "chat." : ""}completions.create(`,
    ...named,
    ")",
    `print(reply.choices[0].${isChat ? "message.content" : "text"})`,
  ].join("\n")
}
