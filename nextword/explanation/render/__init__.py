"""What is known, drawn: pure functions from plain data to text, HTML and SVG."""
