"""What happens when a loss is added up in bfloat16, chunk by chunk.

    python benchmarks/bfloat16_sum.py

PyTorch's chunked loss adds the chunks' losses up in the inputs' type. bfloat16 keeps eight bits of
a number: once the sum is large, a chunk's share is rounded away. The script prints the loss of
PyTorch's chunks, of nextword's, and the true one, for 1 to 1,024 chunks.
"""

import torch
import torch.nn.functional as F

from nextword import linear_cross_entropy


def main():
    """Print the table."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 64, generator=source).bfloat16()
    w = (torch.randn(8192, 64, generator=source) * 64**-0.5).bfloat16()
    targets = torch.randint(0, 8192, (1024,), generator=source)
    true = F.cross_entropy(x.double() @ w.double().T, targets)
    print(f"{'chunks':>7} {'true':>9} {'nextword':>9} {'PyTorch':>9}")
    for chunks in (1, 4, 16, 64, 256, 1024):
        rows = 1024 // chunks
        ours = linear_cross_entropy(x, w, targets, chunk_rows=rows)
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows)
        # Only with a gradient wanted does PyTorch take its chunked way.
        theirs = F.linear_cross_entropy(x.clone().requires_grad_(), w, targets, options=options)
        print(f"{chunks:>7} {float(true):>9.4f} {float(ours):>9.4f} {float(theirs.detach()):>9.4f}")


if __name__ == "__main__":
    main()
