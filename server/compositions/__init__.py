"""From a request's body to a composition, to immutable versions, to directories that the engine can load."""
