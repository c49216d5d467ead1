"""The proof that no change is lost, in what ever way agent, node or disk fail."""
