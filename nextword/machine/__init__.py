"""The machine at hand: its device, the precision it computes in, and this process among many."""
