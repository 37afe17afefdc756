"""Views of one report: terminal, JSON. Only these print."""
