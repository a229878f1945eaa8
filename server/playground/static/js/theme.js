// Light or dark: as the system, or as the person chose.
import { computed, signal } from "./lib.js"
import { read, write } from "./storage.js"

export const THEMES = { system: "Auto", light: "Light", dark: "Dark" }
const STORED_THEME = "lora-compose-theme"

export const theme = signal(read("localStorage", STORED_THEME) ?? "system")
const system = matchMedia("(prefers-color-scheme: dark)")
const isSystemDark = signal(system.matches)
system.addEventListener("change", () => (isSystemDark.value = system.matches))

// What is shown. Charts are drawn again when it changes.
export const isDark = computed(() => (theme.value === "system" ? isSystemDark.value : theme.value === "dark"))

export function setTheme(name) {
  theme.value = name
  write("localStorage", STORED_THEME, name)
  document.documentElement.style.colorScheme = name === "system" ? "light dark" : name
}
