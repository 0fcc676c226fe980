"""What may be wider than the screen: it scrolls by itself, and the keyboard reaches it."""

from nextword.rendering.formatting import escape


def scrolling(inside: str, label: str, tag: str = "div") -> str:
    """Wrap a table, a drawing or laid-out text so that it scrolls, by arrow keys too.

    A page's script takes what is not too wide at the moment out of the keyboard's way.

    Args:
        inside: HTML.
        label: says what it is to those who come to it by keyboard and do not see it.
        tag: of the element around it: div, figure or pre.
    """
    role = "" if tag == "figure" else ' role="group"'
    return f'<{tag} class="scroll" tabindex="0"{role} aria-label="{escape(label)}">{inside}</{tag}>'
