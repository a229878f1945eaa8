"""`make smollm2-check`: a served real model against transformers and PEFT."""
