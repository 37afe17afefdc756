"""Layer by layer beside Polygraphy with all tensors marked. See `__main__`."""
