"""What happened, in plain words: pure functions from numbers to text, and the screen they are shown on."""
