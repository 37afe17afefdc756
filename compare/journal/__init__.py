"""Results that are kept in a folder, so that a run that was killed goes on where it was.

`journal` keeps and recalls values by a key, `keys` makes the keys, `codec` turns values into bytes and back without
running anything that is in them.
"""
