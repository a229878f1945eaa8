// The HTTP API, with the key of this tab. Refusals become ApiError.
import { signal } from "./lib.js"
import { read, write } from "./storage.js"

const STORED_KEY = "lora-compose-key"
// What a header can carry.
const SENDABLE = /^[\x21-\x7e]*$/

// The key stays in this tab. It is sent in a header and is never part of an address.
export const key = signal(read("sessionStorage", STORED_KEY) ?? "")

export function useKey(text) {
  write("sessionStorage", STORED_KEY, text)
  key.value = text
}

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message)
    this.status = status
    this.code = code
  }
}

export const address = (path) => new URL(path, document.baseURI).href

export function headers(more = {}) {
  return key.value ? { ...more, authorization: `Bearer ${key.value}` } : more
}

export function errorOf(status, text) {
  let error = {}
  try {
    error = JSON.parse(text).error ?? {}
  } catch {
    // a proxy may answer with another body
  }
  return new ApiError(status, error.code ?? `http_${status}`, error.message ?? `The server answered ${status}.`)
}

// A request whose refusal is an ApiError. `body` is sent as JSON.
export async function call(method, path, { body, signal } = {}) {
  const type = body === undefined ? {} : { "content-type": "application/json" }
  if (!SENDABLE.test(key.value)) throw new ApiError(401, "invalid_api_key", "A key has only letters, digits and signs of ASCII.")
  let reply
  try {
    reply = await fetch(address(path), {
      method,
      signal,
      headers: headers(type),
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
    })
  } catch (error) {
    if (error.name === "AbortError") throw error
    throw new ApiError(0, "unreachable", "The server does not answer. Is it running?")
  }
  if (!reply.ok) throw errorOf(reply.status, await reply.text())
  return reply
}

export async function json(method, path, options) {
  const reply = await call(method, path, options)
  return reply.status === 204 ? null : reply.json()
}

// The JSON of each event of a stream. An error event is thrown.
export async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ""
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    const parts = (rest + value).split("\n\n")
    rest = parts.pop()
    for (const part of parts) {
      const data = part.startsWith("data: ") ? part.slice(6) : ""
      if (!data || data === "[DONE]") continue
      const event = JSON.parse(data)
      if (event.error) throw new ApiError(500, event.error.code ?? "stream_error", event.error.message)
      yield event
    }
  }
}

// Upload a form. `onProgress` gets the sent fraction. fetch cannot report it, so this is an XMLHttpRequest.
export function upload(path, form, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open("POST", address(path))
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value)
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total)
    request.onerror = () => reject(new ApiError(0, "unreachable", "The connection ended before the upload was complete."))
    request.onload = () => {
      if (request.status < 300) resolve({ created: request.status === 201, adapter: JSON.parse(request.responseText) })
      else reject(errorOf(request.status, request.responseText))
    }
    request.send(form)
  })
}
