"""An endpoint as OpenAI's, whose probabilities are exact: a file for each part of it.

Options, texts that grow (`growing`), who is served when (`engine`), what may be asked (`requests`)
and how (`errors`), what is answered (`completions`, `chat`, `tokens`), and the doors (`app`,
`doors`, `ports`, `guard`).
"""
