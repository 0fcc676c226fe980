"""Plain words for a file that a model made shorter: what the loss promised, what it took."""

import math

from nextword.prediction.archive import Receipt
from nextword.rendering.formatting import table

_WORTH_A_SHARE = 1000
"""Promised bytes below which the head is most of a file, and a share of it says nothing."""


def describe_receipt(receipt: Receipt) -> str:
    """Lay out promise and bytes, the model's own weight, and what others make of the file."""
    if not receipt.original_bytes:
        return (
            f"the file is empty: there is nothing to promise; the {receipt.header_bytes} bytes "
            "written say what they were made with"
        )
    return "\n\n".join(
        part for part in (_promise(receipt), _others(receipt), _weight(receipt)) if part
    )


def _promise(receipt: Receipt) -> str:
    promised, original = receipt.ideal_bits / 8, receipt.original_bytes
    more = receipt.compressed_bytes - promised
    share = f" ({abs(more) / promised:.2%})" if promised >= _WORTH_A_SHARE else ""
    shorter = original / receipt.compressed_bytes
    taken = f"{shorter:.1f} times shorter" if shorter > 1 else "longer"
    if shorter <= 1 and promised > original:
        taken += ", for such text is new to the model"
    verified = (
        f"identical, byte for byte ({receipt.verify_seconds:.1f} s)"
        if receipt.verified
        else "not tried (--no-verify)"
    )
    rows = [
        (
            "promised",
            f"{promised:,.0f} bytes = {receipt.ideal_bits:,.0f} bits: the model's surprise at "
            f"each of {receipt.tokens:,} tokens, added up",
        ),
        ("taken", f"{receipt.compressed_bytes:,} bytes, the file has {original:,}: {taken}"),
        (
            "difference",
            f"{abs(more):,.0f} bytes {'more' if more >= 0 else 'less'}{share}; "
            f"{receipt.header_bytes} bytes say what the file was made with",
        ),
        ("decoded again", verified),
    ]
    if more < 0:
        rounded = "(a chance below one in 16 million is rounded up, and costs less than it should)"
        rows.insert(3, ("", rounded))
    lines = [f"{name:<15}{words}" for name, words in rows]
    lines += [
        "",
        f"The loss says {receipt.ideal_bits / receipt.tokens:.2f} bits for each token. That is not "
        "a manner of speaking:",
        "the less a model is surprised by a text, the fewer bits are needed to write it down.",
    ]
    return "\n".join(lines)


def _others(receipt: Receipt) -> str:
    sizes = [
        ("this model", receipt.compressed_bytes),
        ("… and the model itself", receipt.compressed_bytes + receipt.model_bytes),
        *receipt.rivals.items(),
        ("the file as it is", receipt.original_bytes),
    ]
    rows = [
        [name, f"{size:,}", f"{8 * size / receipt.original_bytes:,.3f}"] for name, size in sizes
    ]
    return "\n".join(table(["", "bytes", "bits a byte"], rows, left=frozenset({0})))


def _weight(receipt: Receipt) -> str:
    """Say from what length on the model is worth its own weight."""
    owned = f"Whoever decodes needs the model too, {receipt.model_bytes:,} bytes."
    if not receipt.rivals:
        return owned
    name, best = min(receipt.rivals.items(), key=lambda rival: rival[1])
    saved = best - receipt.compressed_bytes
    if saved <= 0:
        return f"{owned} {name} needs none, and makes this file at least as short."
    times = receipt.model_bytes / saved
    if times <= 1:
        return f"{owned} Even with that it is shorter here than {name}."
    from_bytes = math.ceil(receipt.original_bytes * times / 1e5) / 10
    return f"{owned} It pays beside {name} from about {from_bytes:,.1f} MB of such text on."
