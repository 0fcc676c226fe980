"""How it is shown: pure functions from plain data to terminal text, HTML and SVG."""
