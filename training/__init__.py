"""From a recipe to a run, to a published version. Speaks to a server through `server.client` only."""
