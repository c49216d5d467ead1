"""For Sphinx: ``sphinx-build -W docs docs/_build``. The pages need none of its extensions."""

project = "refresh-agent"
extensions: list[str] = []
exclude_patterns = ["_build"]
# Pages are read in many viewers: quotes and dashes in commands must stay what they are.
smartquotes = False
man_pages = [
    (
        "refresh-agent.8",
        "refresh-agent",
        "run the node's refresh hooks and migrate databases when its configuration changes",
        "",
        8,
    )
]
