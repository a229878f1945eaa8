// What a browser keeps for the page. A browser that blocks this keeps nothing, and the page works.
export function read(area, name) {
  try {
    return window[area].getItem(name)
  } catch {
    return null
  }
}

export function write(area, name, text) {
  try {
    if (text) window[area].setItem(name, text)
    else window[area].removeItem(name)
  } catch {
    // blocked
  }
}
