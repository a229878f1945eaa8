"""How the embedded base and its adapters are made: a language, its corpus, pre-training, adapters."""
