"""A network as one page to walk through: drawn, with its code, a picture on its way, traps, and other presets."""
