"""Persistent gallery of binary codes: a SQLite catalog as the truth, a Faiss index derived from it."""
