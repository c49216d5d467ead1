"""The database bridge: brings the databases of a node's services to the revision that their code expects."""
