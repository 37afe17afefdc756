"""What language models cost and how far formats are apart: ``python -m benchmarks.llm``."""
