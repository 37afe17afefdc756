"""The third question: why? Is a layer's error more than rounding, and what explains it."""
