"""Files that hold scaled integers: which float operators they stand for, and the steps that stand in them."""
