"""Hardware: device, precision, and the rank of this process."""
