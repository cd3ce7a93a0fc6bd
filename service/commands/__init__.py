"""What the command line does, apart from its options: each command works on a data folder or a running server."""
