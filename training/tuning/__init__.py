"""Search the weights of a stack against a running server.

Here: the search, its validation rows and the command `lora-compose train weights`. Not here: building and
exporting a composition, which is in `adapters`.
"""
