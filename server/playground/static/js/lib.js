// The libraries of the page under one name, so that each file needs one import.
import { h, render } from "../vendor/preact.mjs"
import htm from "../vendor/htm.mjs"

export { render }
export { useEffect, useRef, useState } from "../vendor/hooks.mjs"
export { batch, computed, effect, signal } from "../vendor/signals.mjs"

// Templates become elements and text nodes. No text is ever parsed as HTML.
export const html = htm.bind(h)
