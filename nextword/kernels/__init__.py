"""Kernels: hand-written implementations of layers and loss; `choose.py` says which layer has one.

Each does what a plain function of PyTorch does, and is tested against it in value and gradient.
"""
