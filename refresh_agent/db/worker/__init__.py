"""What runs under the interpreter that owns a migration tree: Python 3.9 or newer, SQLAlchemy 1.4 or 2.x.

Nothing here imports the rest of the project, since that interpreter has not installed it: the agent starts
``__main__.py`` by its path, gives it one JSON request and reads JSON lines (``protocol``).
"""
