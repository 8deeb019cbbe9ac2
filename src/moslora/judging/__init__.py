"""Blind pairwise evaluation: judges compare answers of methods that nothing they are shown names. Imports no torch.

`study` holds a study in one SQLite file, `server` serves it to judges, `judgements` reads it back.
"""
