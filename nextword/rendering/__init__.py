"""How it is shown, as terminal text, HTML and SVG: a file for each thing that is shown."""
