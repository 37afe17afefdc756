"""The TensorRT runner's parts: what each version has, building, running, calibrating and looking into engines."""
