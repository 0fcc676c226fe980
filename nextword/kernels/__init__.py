"""Kernels: hand-written implementations of layers and loss, chosen by machine in one place.

Each does what a plain function of PyTorch does, and is tested against it in value and gradient.
"""
