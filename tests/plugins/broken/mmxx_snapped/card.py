raise RuntimeError("snapped in two")
