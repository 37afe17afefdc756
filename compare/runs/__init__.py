"""Running every side on every sample, within the memory there is."""
