"""Sources of inputs: one module each, all behind `Source`."""
