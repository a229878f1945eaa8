// Reads the figures of the charts from the Prometheus text of GET /metrics.

// The sums of samples over their labels, by name.
export function sums(text) {
  const found = {}
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})? ([^ ]+)/.exec(line)
    if (match) found[match[1]] = (found[match[1]] ?? 0) + Number(match[2])
  }
  return found
}

const rate = (now, before, name, seconds) => ((now[name] ?? 0) - (before[name] ?? 0)) / seconds

// The figures between two readings, `seconds` apart. null: nothing happened that has this figure.
export function figures(now, before, seconds) {
  const first = "lora_compose_time_to_first_token_seconds"
  const answers = (now[`${first}_count`] ?? 0) - (before[`${first}_count`] ?? 0)
  return {
    tokens: rate(now, before, "vllm:generation_tokens_total", seconds),
    ttft: answers > 0 ? (((now[`${first}_sum`] ?? 0) - (before[`${first}_sum`] ?? 0)) / answers) * 1000 : null,
    waiting: (now["vllm:num_requests_waiting"] ?? 0) + (now.lora_compose_queued_requests ?? 0),
  }
}
