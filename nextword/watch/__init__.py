"""The live page: a run's journal, drawn as it is written, and its model, asked meanwhile.

The journal (`series`), what can be asked of a run's weights (`asking`), the paths (`app`), and the
page itself (page.html, page.js, page.css) in the report's colors.
"""
