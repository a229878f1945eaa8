"""Writes the files of llama.cpp's server with our numbers, and says how it is started and asked."""
