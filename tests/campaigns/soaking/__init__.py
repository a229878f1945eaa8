"""The parts of the soak: traffic, registry changes, faults, samples and the judgement."""
