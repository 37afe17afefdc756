"""The comparator: do they agree, where do they part, why; the report; the ``compare`` command."""
