"""Search the weights of a stack against a running server.

This package has the search, its validation rows and the command `lora-compose train weights`. Building and
exporting a composition is in `adapters`.
"""
