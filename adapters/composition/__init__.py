"""A composition as a value: names, weights and a method, from text or JSON. No disk and no tensor in here."""
