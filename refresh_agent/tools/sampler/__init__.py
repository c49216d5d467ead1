"""Runs under the interpreter of the project whose options are looked for; imports only what that has to have.

It stands apart from the rest of the package, and works with Python 3.9.
"""
