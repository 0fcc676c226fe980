"""Train on the built-in stories, then ask for the odds of the worked example."""

import math

import nextword

PROMPT = "We are all humans born to"

model = nextword.train(quiet=False)
for word, true in (("make mistakes", 0.6), ("create", 0.2), ("learn", 0.1)):
    probability = model.probability(PROMPT, f" {word}")
    print(f"P({word}) = {probability:.3f}, truly {true}; loss {-math.log(probability):.2f} nats")  # noqa: T201
