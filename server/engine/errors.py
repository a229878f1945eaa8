"""The engine's exceptions, which the rest of the server can import without importing vLLM.

The engine's frontend translates vLLM's exceptions into these.
"""


class EngineDied(Exception):
    """The engine process ended. Requests in flight are lost."""


class AdapterNotPrepared(Exception):
    """The engine refused to build an adapter. It continues to serve the others."""


class PluginMissing(RuntimeError):
    """A vLLM process runs without our overrides, so it could answer with another adapter."""


class EngineNotStarted(Exception):
    """An engine process ended before it served. The message is the cause, in one line."""
