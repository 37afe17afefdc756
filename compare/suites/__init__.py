"""Many comparisons at once: a file of checks, and a fixture for pytest."""
