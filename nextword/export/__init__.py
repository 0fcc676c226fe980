"""Models for other programs: one file as llama.cpp and Ollama read it."""
